"""The nodes of an ONNX graph as they are written, and the table of functions that write them, by class of op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from needle.backend import HostArray
from needle.graph import Op, Spec
from needle.onnx.exporting.free import Free, Size

__all__ = ["TABLE", "Graph", "Made", "Written", "known", "onnx_dtype", "writes"]

Written: TypeAlias = str | tuple[str | None, ...]  # the name of a result; of a tuple, of its elements
Writer: TypeAlias = Callable[..., Written]  # (graph, made, *names of the inputs)
W = TypeVar("W", bound=Writer)

TABLE: dict[type[Op], Writer] = {}


class Made(NamedTuple):
    """An op with the specs of its inputs and its result, for the function that writes it."""

    op: Any
    inputs: tuple[Any, ...]
    spec: Any

    @property
    def dtype(self) -> Any:
        """The dtype of the result."""
        return self.spec.dtype


def writes(*op_classes: type[Op]) -> Callable[[W], W]:
    """Let a function write ops of these classes (not of their subclasses)."""

    def register(function: W) -> W:
        TABLE.update(dict.fromkeys(op_classes, function))
        return function

    return register


def onnx_dtype(dtype: Any) -> int:
    """The number of a dtype in ONNX."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def known(shape: Sequence[Size]) -> tuple[int, ...]:
    """A shape of which every size must be known."""
    sizes = tuple(size for size in shape if not isinstance(size, Free))
    if len(sizes) < len(shape):
        raise ValueError("export: with batch_axis, ops must work for all batch sizes, but one needs its size")
    return sizes


class Graph:
    """Nodes in the order in which they run. Values are strings, their names."""

    def __init__(self, opset: int, taken: Sequence[str]) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.module = ""  # whose ops are being written
        self.origins: dict[str, tuple[Made, tuple[str, ...]]] = {}  # of a result: the op, and the names of its inputs
        self.batch: tuple[str, int] | None = None  # an input, and its axis of free size
        # of a batch normalization without bias: x, scale, mean, variance, eps
        self.normalized: dict[str, tuple[str, str, str, str, float]] = {}
        self._taken, self._counts = {*taken}, Counter[str]()
        self._constants: dict[tuple[Any, ...], str] = {}

    def node(self, op_type: str, *inputs: str | None, **attributes: Any) -> str:
        """Add a node with one output, whose name it returns. Attributes that are None are left out."""
        return self.node_of(1, op_type, *inputs, **attributes)[0]

    def node_of(self, outputs: int, op_type: str, *inputs: str | None, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several outputs, whose names it returns."""
        name = self.name("/".join(filter(None, (self.module.replace(".", "/"), op_type))))
        results = (name, *(f"{name}:{i}" for i in range(1, outputs)))
        given = {key: value for key, value in attributes.items() if value is not None}
        last = max((i for i, x in enumerate(inputs) if x is not None), default=-1)
        operands = ["" if x is None else x for x in inputs[: last + 1]]
        self.nodes.append(helper.make_node(op_type, operands, results, name=name, **given))
        return results

    def name(self, base: str) -> str:
        """`base`, with a number behind it if it is taken."""
        name = base
        while name in self._taken:
            self._counts[base] += 1
            name = f"{base}_{self._counts[base]}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = "int64") -> str:
        """A constant in a node of its own, one for all uses: initialisers are what a model learns."""
        array: HostArray = np.asarray(value, dtype=dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name, self.module, module = self.name("constant"), "", self.module
            node = helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(array))
            self.nodes.append(node)
            self._constants[key], self.module = name, module
        return self._constants[key]

    def cast(self, x: str, spec: Spec, dtype: Any) -> str:
        """x, of a spec, in another dtype."""
        return x if spec.dtype == dtype else self.node("Cast", x, to=onnx_dtype(dtype))

    def sizes(self, shape: Sequence[Size]) -> str:
        """A shape as a vector of int64, computed where it has free sizes."""
        if not any(isinstance(size, Free) for size in shape):
            return self.constant(shape)
        assert self.batch is not None
        name, axis = self.batch
        count = self.node("Gather", self.node("Shape", name), self.constant([axis]), axis=0)
        factors = self.constant([size.factor if isinstance(size, Free) else 0 for size in shape])
        offsets = self.constant([size.offset if isinstance(size, Free) else size for size in shape])
        return self.node("Add", self.node("Mul", count, factors), offsets)

    def number(self, value: Any, dtype: Any) -> str:
        """A number without axes, which may be a free size."""
        if not isinstance(value, Free):
            return self.constant(value, dtype)
        size = self.node("Squeeze", self.sizes([value]), self.constant([0]))
        return self.node("Cast", size, to=onnx_dtype(dtype))

    def reshape(self, x: str, shape: Sequence[Size]) -> str:
        """x in another shape, of which one size may be free."""
        free = [i for i, size in enumerate(shape) if isinstance(size, Free)]
        if len(free) == 1 and 0 not in shape:
            return self.node("Reshape", x, self.constant([-1 if i in free else n for i, n in enumerate(shape)]))
        return self.node("Reshape", x, self.sizes(shape), allowzero=1 if 0 in shape else None)

    def origin(self, name: str, *op_classes: type[Op]) -> tuple[Made, tuple[str, ...]] | None:
        """The op that a value came from and the names of its inputs, if it is of one of these classes."""
        found = self.origins.get(name)
        return found if found is not None and type(found[0].op) in op_classes else None

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: bool) -> str:
        """A reduction over axes: an attribute in old opsets, an input in new ones; over no axes, x itself."""
        if not axes:
            return self.node("Identity", x)
        if kind == "ReduceSum" or self.opset >= 18:
            return self.node(kind, x, self.constant(axes), keepdims=int(keepdims))
        return self.node(kind, x, axes=list(axes), keepdims=int(keepdims))

    def write(self, made: Made, inputs: tuple[str, ...]) -> Written:
        """The nodes of an op."""
        result = TABLE[type(made.op)](self, made, *inputs)
        if isinstance(result, str) and result not in inputs:
            self.origins[result] = made, inputs
        return result

    def needed(self, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes that the outputs need."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]
