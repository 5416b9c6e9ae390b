"""`export`: a module as an ONNX model in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from needle import check
from needle.autograd import Tensor
from needle.files import Path, path_name
from needle.nn import Module
from needle.onnx.exporting import arrays as _arrays  # noqa: F401 (it fills the table)
from needle.onnx.exporting import patterns as _patterns  # noqa: F401
from needle.onnx.exporting.file import write_model
from needle.onnx.exporting.free import Free, Spread, merged
from needle.onnx.exporting.graph import TABLE, Graph, Made, Written, onnx_dtype
from needle.onnx.exporting.outline import Outline, Step, outline_of
from needle.ops.arithmetic import AddScalar, DivScalar, MulScalar
from needle.ops.index import GetItem
from needle.ops.pool import MaxUnpool
from needle.ops.scatter import PutAlong
from needle.ops.shape import BroadcastTo, Reshape, SumTo
from needle.ops.tuples import TensorTupleGetItem

__all__ = ["export"]

NEWEST = 28  # of the opsets that the table of operators was checked with
BATCHES = (101, 103, 214)  # sizes at which the outline is taken, beside that of the sample, to see what depends on the
# batch: odd and even ones, which equal hardly any other size of a model
# ops whose parameters may be free sizes
SIZED = (AddScalar, BroadcastTo, DivScalar, GetItem, MaxUnpool, MulScalar, PutAlong, Reshape, SumTo)


def export(
    model: Module,
    sample: Any,
    path: Path,
    *,
    opset: int = 20,
    batch_axis: int | Sequence[int | None] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write the forward pass of `model` in evaluation mode to an ONNX file.

    `sample` is the model's argument, or a tuple of all: tensors and arrays, within lists, tuples and dicts too, are the
    inputs of the file, by their shapes and dtypes; anything else is fixed. They have no values: the graph is outlined
    on shapes alone. So `forward` runs once as Python, what it decides by sizes is fixed, and what it decides by values
    is refused.

    Parameters and buffers keep their names in `state_dict()`, tied ones the first. Inputs are called as the arguments
    of `forward`, outputs "output", or "output_0", "output_1", …, unless `input_names` and `output_names` say otherwise,
    nodes by their modules: "features/0/Conv".

    - `opset` is the version of ONNX's operators, from 17 on. 20 is what torch writes by default, too; onnxruntime reads
      it since 1.17.
    - `batch_axis` is the axis whose size stays free, "batch" in the file: one for all inputs, or one for each, None for
      an input without.

    The model is checked and its shapes are inferred before the file is written, whole or not at all. Where it would
    exceed 2 GiB, the state goes into a second file beside it, of the same name with `.data` behind.

    Raises `ValueError` for an op that has no form in ONNX, for a forward pass that reads values or draws random numbers
    or depends on the size of the batch by more than shapes, for names that are no names of the model's inputs and
    outputs, and for an `opset` that is not known; `TypeError` for arguments or results of other types; `OSError` if the
    file cannot be written.

    >>> import os, tempfile
    >>> import needle as ndl
    >>> from needle import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     export(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), ndl.ones(1, 4), path, batch_axis=0)
    ...     graph = onnx.load(path).graph
    >>> [node.op_type for node in graph.node], [entry.name for entry in graph.initializer]
    (['MatMul', 'Add', 'Relu'], ['0.weight', '0.bias'])
    """
    check.instance("export", "model", model, Module)
    name = path_name("export", "path", path)
    newest = min(NEWEST, onnx.defs.onnx_opset_version())
    if not 17 <= check.integer("export", "opset", opset) <= newest:
        raise ValueError(f"export: opset must lie in [17, {newest}], but got {opset}")
    args = [_with_tensors(arg) for arg in (sample if isinstance(sample, tuple) else (sample,))]
    outline, axes = _outline(model, args, batch_axis)
    proto, state = _Export(outline, opset, axes, input_names, output_names).model()
    write_model(name, proto, state)


def _with_tensors(arg: Any) -> Any:
    """An argument, with its arrays as tensors."""
    if isinstance(arg, dict):
        return {key: _with_tensors(entry) for key, entry in arg.items()}
    if isinstance(arg, (list, tuple)):
        entries = [_with_tensors(entry) for entry in arg]
        return entries if isinstance(arg, list) else tuple(entries)
    return Tensor(arg, requires_grad=False) if hasattr(arg, "__array__") and not isinstance(arg, Tensor) else arg


def _outline(
    model: Module, args: Sequence[Any], batch_axis: int | Sequence[int | None] | None
) -> tuple[Outline, list[int | None]]:
    """The outline of a model, with free sizes where `batch_axis` is given, and the axis of each input."""
    first = outline_of(model, args)
    inputs = list(first.inputs.values())
    if batch_axis is None or isinstance(batch_axis, int):
        entries: Sequence[int | None] = [batch_axis] * len(inputs)
    else:
        entries = list(check.instance("export", "batch_axis", batch_axis, Sequence))
    check.same("export", "length", len(inputs), len(entries), ("the inputs", "batch_axis"))
    axes = [
        axis if axis is None else check.axis("export", axis, len(spec.shape), "batch_axis")
        for axis, (_, spec) in zip(entries, inputs, strict=True)
    ]
    if axes.count(None) == len(axes):
        return first, axes

    def at_size(size: int) -> Outline:
        places = iter(axes)

        def changed(x: Tensor) -> tuple[int, ...]:
            axis = next(places)
            return tuple(size if i == axis else n for i, n in enumerate(x.shape))

        return outline_of(model, args, changed)

    sizes = {spec.shape[axis] for axis, (_, spec) in zip(axes, inputs, strict=True) if axis is not None}
    if len(sizes) == 1 and sizes.isdisjoint({0, 1, *BATCHES}):  # one item, or none, may spare an op
        return merged([*map(at_size, BATCHES), first], (*BATCHES, *sizes)), axes
    return merged([at_size(size) for size in BATCHES], BATCHES), axes


class _Export:
    """The outline as a graph of ONNX."""

    def __init__(
        self, outline: Outline, opset: int, axes: Sequence[int | None], input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
    ) -> None:  # fmt: skip
        self.outline = outline
        _check_ops([*outline.steps.values()])
        state = [name for name, _ in outline.state.values()]
        names = _names("input_names", input_names, [name for name, _ in outline.inputs.values()], state)
        self.outputs = _names("output_names", output_names, [name for name, _ in outline.outputs], [*state, *names])
        self.inputs = dict(zip(outline.inputs, names, strict=True))
        self.graph = Graph(opset, [*state, *names, *self.outputs])
        free = [(name, axis) for name, axis in zip(names, axes, strict=True) if axis is not None]
        self.graph.batch = free[0] if free else None

    def model(self) -> tuple[onnx.ModelProto, dict[str, Tensor]]:
        """The model without its state, and the state."""
        outline, graph = self.outline, self.graph
        values: dict[int, Written] = dict(self.inputs)
        values |= {number: name for number, (name, _) in outline.state.items()}
        for number, step in sorted(outline.steps.items()):
            for x in step.inputs:
                if x in outline.constants and x not in values:
                    values[x] = self.constant(outline.constants[x])
            graph.module = step.module
            values[number] = self.write(step, [values[x] for x in step.inputs])
        graph.module = ""
        renamed: dict[str, str] = {}
        made = {name for node in graph.nodes for name in node.output}
        for output, (_, number) in zip(self.outputs, outline.outputs, strict=True):
            value = values[number] if number in values else self.constant(outline.constants[number])
            assert isinstance(value, str)
            if value in made and value not in renamed:
                renamed[value] = output
            else:
                graph.nodes.append(helper.make_node("Identity", [renamed.get(value, value)], [output], name=output))
        for node in graph.nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        nodes = graph.needed(self.outputs)
        read = {name for node in nodes for name in node.input}
        proto = helper.make_graph(
            nodes,
            "needle",
            [_value(name, outline.spec(number)) for number, name in self.inputs.items()],
            [_value(name, outline.spec(x)) for name, (_, x) in zip(self.outputs, outline.outputs, strict=True)],
        )
        imports = [helper.make_opsetid("", graph.opset)]
        model = helper.make_model(
            proto, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports), producer_name="needle",
            producer_version=sys.modules["needle"].__version__,
        )  # fmt: skip
        return model, {name: tensor for name, tensor in outline.state.values() if name in read}

    def constant(self, value: Any) -> str:
        if isinstance(value, Spread):
            repeated = self.graph.constant(value.array, value.dtype)
            return self.graph.node("Expand", repeated, self.graph.sizes(value.shape))
        return self.graph.constant(value, value.dtype)

    def write(self, step: Step, inputs: Sequence[Written]) -> Written:
        """The nodes of a step."""
        if isinstance(step.op, TensorTupleGetItem):
            element = inputs[0][step.op.index]
            if element is None:
                raise ValueError(
                    f"export: ops must have a form in ONNX, but result {step.op.index} of "
                    f"{type(self.outline.steps[step.inputs[0]].op).__name__} has none"
                )
            return element
        specs = tuple(self.outline.spec(x) for x in step.inputs)
        return self.graph.write(Made(step.op, specs, step.spec), tuple(str(name) for name in inputs))


def _check_ops(steps: Sequence[Step]) -> None:
    """Refuse ops that are not in the table, and parameters that follow the batch size where they may not."""
    missing = {type(step.op).__name__ for step in steps if type(step.op) not in TABLE} - {"TensorTupleGetItem"}
    if missing:
        verb = "has" if len(missing) == 1 else "have"
        raise ValueError(f"export: ops must have a form in ONNX, but {', '.join(sorted(missing))} {verb} none")
    for step in steps:
        if not isinstance(step.op, SIZED) and any(map(_is_free, vars(step.op).values())):
            raise ValueError(
                f"export: with batch_axis, ops must have the same parameters for all batch sizes, but got {step.op!r} "
                f"in {step.module or 'the model'}"
            )


def _is_free(value: Any) -> bool:
    return isinstance(value, Free) or (isinstance(value, tuple) and any(map(_is_free, value)))


def _names(option: str, given: Sequence[str] | None, found: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Names for inputs or outputs, as they are given or as they were found; no two are equal."""
    if given is None:
        names: list[str] = []
        for name in found:
            base, i = name, 1
            while name in names or name in taken:
                name, i = f"{base}_{i}", i + 1
            names.append(name)
        return names
    entries = check.instance("export", option, given, Sequence)
    names = [check.instance("export", f"each of {option}", name, str) for name in entries]
    if len(names) != len(found) or len({*names}) < len(names) or "" in names or {*names} & {*taken}:
        raise ValueError(
            f"export: {option} must be {len(found)} different names that nothing else has, but got {names}"
        )
    return names


def _value(name: str, spec: Any) -> onnx.ValueInfoProto:
    """A value with its dtype and shape; the batch size has a name, other sizes that follow it have none."""
    shape = [n if isinstance(n, int) else "batch" if n == Free(1, 0) else None for n in spec.shape]
    return helper.make_tensor_value_info(name, onnx_dtype(spec.dtype), shape)
