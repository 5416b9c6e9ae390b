"""The operators that are known: the functions that compute each, by domain, name and version of the schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnx

from needle.autograd import Tensor

__all__ = ["Node", "Operator", "find_operator", "operator"]

Function: TypeAlias = Callable[..., Tensor | tuple[Tensor | None, ...]]
F = TypeVar("F", bound=Function)


class Node:
    """A node of a graph, as the function of its operator sees it.

    `node["axis"]` is an attribute in Python's terms (int, float, str, list, TensorProto, GraphProto …); one that the
    model leaves out has the default of the schema, or is None. The bodies of If, Loop and Scan are graphs that `run`;
    `outer` names the values that they read from around them, which follow the node's own inputs.
    """

    outer: tuple[str, ...] = ()
    owner: Any = None  # the module that the node belongs to

    def __init__(self, proto: onnx.NodeProto, opset: int) -> None:
        self.name, self.op_type, self.domain, self.opset = proto.name, proto.op_type, proto.domain, opset
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self._attributes: dict[str, Any] = _defaults(proto.op_type, proto.domain, opset)
        self._attributes |= {attribute.name: _value(attribute) for attribute in proto.attribute}

    @cached_property
    def function(self) -> Function:
        """The function of the operator, which must be registered."""
        entry = find_operator(self.op_type, self.domain, self.opset)
        assert entry is not None
        return entry.function

    def __getstate__(self) -> dict[str, Any]:  # functions need not be picklable: they are found again
        return {name: value for name, value in vars(self).items() if name != "function"}

    def __getitem__(self, name: str) -> Any:
        return self._attributes[name]

    def get(self, name: str) -> Any:
        """An attribute, or None if the schema of this opset does not have it."""
        return self._attributes.get(name)

    def compile_bodies(self, compiled: Callable[[str, Any], Any]) -> None:
        """Put graphs that run in the place of the bodies, which are attributes: `compiled(attribute, proto)`."""
        protos = {key: value for key, value in self._attributes.items() if isinstance(value, onnx.GraphProto)}
        bodies = {key: compiled(key, proto) for key, proto in protos.items()}
        is_standard = onnx.defs.has(self.op_type, self.domain)
        for key, body in bodies.items():
            taken = {"If": 0, "FlexAttention": 1}.get(self.op_type, len(self.inputs))
            made = len(self.outputs) + (self.op_type == "Loop")
            if is_standard and (len(body.inputs) != taken or len(body.outputs) < made):
                raise ValueError(
                    f"load: {self}: {key} must have {taken} inputs and {made} outputs, "
                    f"but has {len(body.inputs)} and {len(body.outputs)}"
                )
        self._attributes |= bodies
        self.outer = tuple(dict.fromkeys(name for body in bodies.values() for name in body.outer))

    @property
    def training(self) -> bool:
        """Whether the module is in training mode.

        Then BatchNormalization and Dropout train, whatever the model says: batch normalization by the statistics of the
        batch, updating the running ones in place (they are inputs that `buffers` names).
        """
        return self.owner is not None and self.owner.training

    @property
    def cast_dtype(self) -> Any:
        """The floating dtype that the module has been cast to, None if it has those of the model."""
        return None if self.owner is None else self.owner.cast_dtype

    def has_output(self, index: int) -> bool:
        """Whether the model uses an output of the node: one that is optional may be left out."""
        return index < len(self.outputs) and self.outputs[index] != ""

    @cached_property
    def random_state(self) -> np.random.RandomState | None:
        """The stream of a node with a `seed`: it starts there and goes on from run to run; None without a seed."""
        seed = self._attributes.get("seed")
        return None if seed is None else np.random.RandomState(int(seed) % (1 << 32))

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"{self.op_type}{name} (domain {self.domain or 'ai.onnx'!r}, opset {self.opset})"


class Operator(NamedTuple):
    """A function that computes an operator from a version of its schema on.

    `buffers` are the inputs whose initializers are not trained, such as running statistics, scales of Resize and bounds
    of Clip: all that a gradient does not reach, or must not change.
    """

    function: Function
    since: int
    buffers: Sequence[int]


def operator(name: str, *, since: int = 1, domain: str = "", buffers: Sequence[int] = ()) -> Callable[[F], F]:
    """Register a function as the operator `name` from version `since` of its schema on, up to the next one registered.

    The function takes the node and its inputs, None for those that are left out, and returns the output or a tuple of
    the outputs.
    """

    def register(function: F) -> F:
        entries = _OPERATORS.setdefault((domain, name), [])
        entries.append(Operator(function, since, buffers))
        entries.sort(key=lambda entry: entry.since)
        return function

    return register


def find_operator(name: str, domain: str, opset: int) -> Operator | None:
    """The entry of an operator for an opset, or None."""
    known = [entry for entry in _OPERATORS.get((domain, name), ()) if entry.since <= opset]
    return known[-1] if known else None


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}


def _defaults(name: str, domain: str, opset: int) -> dict[str, Any]:
    if not onnx.defs.has(name, domain):  # an operator of the user's own
        return {}
    attributes = onnx.defs.get_schema(name, opset, domain).attributes
    return {key: _value(attribute.default_value) for key, attribute in attributes.items()}


def _value(attribute: onnx.AttributeProto) -> Any:
    """The value of an attribute: bytes as text, and None if it has none."""
    if attribute.type == onnx.AttributeProto.UNDEFINED:
        return None
    try:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type >= onnx.AttributeProto.FLOATS:
            return [item.decode() if isinstance(item, bytes) else item for item in value]
        return value.decode() if isinstance(value, bytes) else value
    except ValueError as error:
        raise ValueError(f"load: attribute {attribute.name!r} must have a value, but got: {error}") from None
