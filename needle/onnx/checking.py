"""Models as they are checked: every operator known, functions inlined, names and types right, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import onnx
from onnx import inliner
from onnx.shape_inference import InferenceError, infer_shapes

import needle.onnx.operators as _operators  # noqa: F401 (registers them)
from needle import check
from needle.onnx.choices import require_choices
from needle.onnx.memory import MOST_AXES, bytes_of_type
from needle.onnx.reading import DTYPES, graphs_of, nodes_of, require_few_nodes
from needle.onnx.registry import find_operator

__all__ = ["checked", "opsets_of", "require_known"]

_MOST_NAMED = 20  # unknown operators in a message; the others are counted


def checked(model: onnx.ModelProto, max_bytes: int) -> onnx.ModelProto:
    """A model without functions, whose values have types; raises ValueError or TypeError with all that is unknown."""
    functions = {(function.domain, function.name) for function in model.functions}
    with _invalid(), _with_shapes(model.graph):
        onnx.checker.check_model(model)
    _require_few_nodes(model)
    _write_defaults(model)
    without = {(node.domain, node.op_type) for node, opset in _nodes(model) if not _has_function(node, opset)}
    with _invalid():
        model = inliner.inline_selected_functions(model, sorted(functions | without), inline_schema_functions=True)
    require_known(model, inlined=True)
    for node in nodes_of(model.graph):
        require_choices(node)
    with _invalid():
        # Not strict: it refuses sizes of Resize whose number is not known. Not data_prop: its memory has no bounds.
        model = infer_shapes(model, check_type=True)
    _require_types(model.graph, max_bytes)
    return model


@contextmanager
def _with_shapes(graph: onnx.GraphProto) -> Iterator[None]:
    """Give inputs and outputs a type and a shape that have none: the checker requires them, and models do without."""
    values = [value for part in graphs_of(graph) for value in (*part.input, *part.output)]
    before = [value.type.SerializeToString() for value in values]
    for value in values:
        if value.type.WhichOneof("value") in (None, "tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
            value.type.tensor_type.shape.SetInParent()
    try:
        yield
    finally:
        for value, kind in zip(values, before, strict=True):
            value.type.ParseFromString(kind)


@contextmanager
def _invalid() -> Iterator[None]:
    """Give errors of ONNX the form of needle's."""
    try:
        yield
    except (onnx.checker.ValidationError, InferenceError, RuntimeError, ValueError) as error:
        raise ValueError(f"load: the model must be valid, but got: {' '.join(str(error).split())}") from None


def require_known(model: onnx.ModelProto, inlined: bool = False) -> None:
    """Require a function for every operator, or, before functions are inlined, a body of other operators.

    The domain ai.onnx gets its other name, "".
    """
    for graph in (model.graph, *model.functions):
        for node in nodes_of(graph):
            node.domain = _domain(node.domain)
            _require_safe(node)
    functions = {(function.domain, function.name) for function in model.functions}
    unknown = dict.fromkeys(
        f"{node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {opset or None})"
        for node, opset in _nodes(model)
        if (node.domain, node.op_type) not in functions
        and not _has_function(node, opset)
        and (inlined or not _has_body(node, opset))
    )
    if unknown:
        named = [*unknown][:_MOST_NAMED] + [f"{len(unknown) - _MOST_NAMED} more"] * (len(unknown) > _MOST_NAMED)
        raise ValueError(f"load: operators must be known, but these are not: {', '.join(named)}")


def opsets_of(model: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    """The version of each domain that a model or function imports, in which "" stands for ai.onnx."""
    opsets: dict[str, int] = {}
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        domain = _domain(entry.domain)
        if opsets.get(domain, entry.version) != entry.version:  # skl2onnx names one twice, with equal versions
            versions = f"{opsets[domain]} and {entry.version}"
            raise ValueError(f"load: a domain must have one opset, but {domain or 'ai.onnx'!r} has {versions}")
        if entry.version < 1 or (not domain and entry.version > newest):
            raise ValueError(f"load: opsets must lie in [1, {newest}], but {domain or 'ai.onnx'!r} has {entry.version}")
        opsets[domain] = entry.version
    return opsets


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _require_safe(node: onnx.NodeProto) -> None:
    """Refuse attributes at which the shape inference of ONNX 1.23.2 ends the process, fills memory or never ends."""
    if not onnx.defs.has(node.op_type, node.domain):
        return
    for attribute in node.attribute:
        if node.op_type == "Einsum" and not re.fullmatch(rb"([A-Za-z ,]|\.\.\.|->)*", attribute.s):
            raise ValueError(
                f"load: equation of Einsum must have letters, commas, '...' and '->', but got {attribute.s!r}"
            )
        if attribute.ref_attr_name or attribute.type != onnx.AttributeProto.INT:
            continue
        if (node.op_type, attribute.name) == ("Split", "num_outputs"):
            check.same("load", "number", attribute.i, len(node.output), ("num_outputs", "the outputs of Split"))
        elif (node.op_type, attribute.name) == ("GatherND", "batch_dims"):
            check.integer("load", "batch_dims of GatherND", attribute.i, least=0)
        elif attribute.name == "axis":
            check.axis("load", attribute.i, MOST_AXES, f"axis of {node.op_type}")


def _nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """The nodes of a model and of its functions, each with the opset of its domain, 0 if that is not imported."""
    for graph, owner in ((model.graph, model), *((function, function) for function in model.functions)):
        opsets = opsets_of(owner)
        yield from ((node, opsets.get(node.domain, 0)) for node in nodes_of(graph))


def _has_function(node: onnx.NodeProto, opset: int) -> bool:
    return find_operator(node.op_type, node.domain, opset) is not None


def _has_body(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the schema of an operator has a body of other operators."""
    schema = _schema(node, opset)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _write_defaults(model: onnx.ModelProto) -> None:
    """Write the default attributes of nodes whose schema has a body, in which ONNX does not fill them in."""
    for node, opset in _nodes(model):
        if _has_body(node, opset):
            given = {attribute.name for attribute in node.attribute}
            defaults = {name: entry.default_value for name, entry in _schema(node, opset).attributes.items()}
            node.attribute.extend(value for name, value in defaults.items() if name not in given and value.type)


def _require_few_nodes(model: onnx.ModelProto) -> None:
    """Require that few nodes come of inlining the functions, which the checker has found not to be recursive."""
    bodies = {(function.domain, function.name): function for function in model.functions}

    @cache
    def size(key: tuple[str, str]) -> int:
        return sum(size((node.domain, node.op_type)) for node in nodes_of(bodies[key])) if key in bodies else 1

    require_few_nodes(sum(size((node.domain, node.op_type)) for node in nodes_of(model.graph)))


def _require_types(graph: onnx.GraphProto, max_bytes: int) -> None:
    """Require that all values are tensors whose dtype needle has and that the announced sizes are not absurd."""
    for part in graphs_of(graph):
        for value in (*part.input, *part.value_info, *part.output):
            kind = value.type.WhichOneof("value")
            element = value.type.tensor_type.elem_type
            if kind not in (None, "tensor_type") or (element and element not in DTYPES):
                known = element in onnx.TensorProto.DataType.values()
                name = onnx.TensorProto.DataType.Name(element) if element and known else element or kind
                raise TypeError(f"load: values must be tensors with a dtype of needle, but {value.name!r} is {name}")
            size = bytes_of_type(value.type)
            if size > max_bytes:
                raise ValueError(
                    f"load: values must take at most {max_bytes} bytes (max_bytes), but {value.name!r} takes {size}"
                )
