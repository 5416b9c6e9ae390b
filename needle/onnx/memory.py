"""What a run may hold: the bytes of its values, counted before they exist.

A few bytes of a model can announce terabytes: Expand, Pad, Resize, a loop. The shape inference of ONNX tells the sizes
of a node's results from the shapes of its inputs, and from their values where these give sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import onnx
from onnx.shape_inference import InferenceError, infer_node_outputs

from needle.autograd import Tensor
from needle.backend import to_host
from needle.outline import Outlined

__all__ = ["MOST_AXES", "Announced", "Memory", "current_memory"]

FLOATS_GIVE_SIZES = ("Range", "Resize", "Upsample")  # operators that read sizes from floating inputs
SIZE_INPUT = {"MaxUnpool": 2}  # operators whose inference does not use the input that has the shape of the result
FLOAT = onnx.TensorProto.FLOAT
MOST_ELEMENTS = 64  # of an input whose values can give sizes
MOST_AXES = 64  # NumPy refuses more
MOST_KNOWN = 64  # sets of input shapes whose results are remembered

current_memory: ContextVar[Memory] = ContextVar("current_memory")


class Memory:
    """The bytes of the values that a run holds, of at most `most`; values that a gradient keeps stay counted."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0

    def require(self, what: object, size: int) -> None:
        """Refuse `size` more bytes, which `what` announces, if they are too many."""
        if self.used + size > self.most:
            raise ValueError(
                f"GraphModule: values must take at most {self.most} bytes (max_bytes of load), "
                f"but {what} makes them {self.used + size}"
            )

    def add(self, tensor: Tensor) -> None:
        """Count a value that has been made."""
        self.used += tensor.size * int(tensor.dtype.itemsize)

    def drop(self, tensor: Tensor) -> None:
        """Count a value no more that a run has let go; those of a recorded graph live on."""
        if not tensor.requires_grad:
            self.used -= tensor.size * int(tensor.dtype.itemsize)


def _scores(options: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> int:
    """The elements of the scores of Attention: queries times keys, the past ones too."""
    queries, keys, past = shapes[0], shapes[1], shapes[4] if len(shapes) > 4 else ()
    heads = queries[1] if len(queries) == 4 else options.get("q_num_heads", 1)
    return queries[0] * heads * queries[-2] * (keys[-2] + (past[2] if past else 0))


def _padded(options: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], weight: int = 1) -> int:
    """The elements of images with their padding, of which large strides may read few."""
    (n, c, *sizes), pads = shapes[0], options.get("pads") or [0] * 2 * len(shapes[0])
    if options.get("auto_pad", b"").startswith(b"SAME"):
        kernel = options.get("kernel_shape") or shapes[weight][2:]
        dilations = options.get("dilations") or [1] * len(kernel)
        pads = [*((k - 1) * d for k, d in zip(kernel, dilations, strict=False)), *[0] * len(kernel)]
    padded = [sum(entry) for entry in zip(sizes, pads, pads[len(sizes) :], strict=False)]
    return int(n * c * math.prod(padded))


def _spread(options: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> int:
    """The elements that ConvTranspose makes before it crops them."""
    (n, _, *sizes), (_, channels, *kernel) = shapes[:2]
    ones = [1] * len(sizes)
    factors = zip(sizes, kernel, options.get("strides") or ones, options.get("dilations") or ones, strict=False)
    full = math.prod((m - 1) * s + (k - 1) * d + 1 for m, k, s, d in factors)
    return int(n * channels * options.get("group", 1) * full)


def _products(options: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> int:
    """The elements of the largest product of Einsum, which goes from left to right."""
    equation, arrow, output = options["equation"].decode().replace(" ", "").partition("->")
    terms = [term.replace("...", "") for term in equation.split(",")]
    rest = [shape[: len(shape) - len(term)] for term, shape in zip(terms, shapes, strict=False)]  # of the ellipsis
    sizes = dict[str, int]()
    for term, shape, others in zip(terms, shapes, rest, strict=False):
        for label, size in zip(term, shape[len(others) :], strict=False):
            sizes[label] = max(size, sizes.get(label, 1))
    labels = "".join(terms)
    wanted = {*output} if arrow else {label for label in labels if labels.count(label) == 1}
    most, seen = 0, {*terms[0]}
    for i, term in enumerate(terms[1:], 2):
        seen = (seen | {*term}) & wanted.union(*terms[i:])
        most = max(most, math.prod(sizes[label] for label in seen))
    return most * max(map(math.prod, rest), default=1)


# Operators that may hold far more than their results: its elements, by attributes and input shapes.
WITHIN: Mapping[str, Callable[[Mapping[str, Any], Sequence[tuple[int, ...]]], int]] = {
    "Attention": _scores,
    "FlexAttention": lambda options, shapes: math.prod(shapes[0][:3]) * shapes[1][2],
    "EyeLike": lambda options, shapes: math.prod(side + abs(options.get("k", 0)) for side in shapes[0]),
    "AveragePool": _padded,
    "Conv": _padded,
    "ConvInteger": _padded,
    "ConvTranspose": _spread,
    "DeformConv": lambda options, shapes: (
        math.prod(shapes[0][:2]) * math.prod(shapes[1][2:]) * math.prod(shapes[2][2:])
    ),
    "Einsum": _products,
    "LpPool": _padded,
    "MaxPool": _padded,
    "QLinearConv": partial(_padded, weight=3),
    "LRN": lambda options, shapes: math.prod(shapes[0]) * (1 + options["size"] // max(shapes[0][1], 1)),
}


class Announced:
    """The bytes that the results of a node will take, by its schema."""

    def __init__(self, proto: onnx.NodeProto, opsets: dict[str, int]) -> None:
        has_body = any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in proto.attribute)
        is_standard = onnx.defs.has(proto.op_type, proto.domain)
        self.is_known = is_standard and not has_body
        self.within = WITHIN.get(proto.op_type) if is_standard else None
        self.proto, self.opsets = proto, opsets
        self.known: dict[Any, int] = {}

    def bytes(self, inputs: Sequence[Tensor | None]) -> int:
        """The bytes of the results for these inputs; 0 where only the run can tell."""
        if any(isinstance(x, Outlined) for x in inputs):  # nothing is computed
            return 0
        if not self.is_known:
            return self._within(inputs)
        kinds = "iuf" if self.proto.op_type in FLOATS_GIVE_SIZES else "iu"
        arrays = [
            to_host(x.array) if x is not None and x.dtype.kind in kinds and x.size <= MOST_ELEMENTS else None
            for x in inputs
        ]
        key = tuple(
            x if x is None else (x.shape, x.dtype, array if array is None else array.tobytes())
            for x, array in zip(inputs, arrays, strict=True)
        )
        if key not in self.known:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            self.known[key] = self._infer(inputs, arrays)
        return self.known[key]

    def _infer(self, inputs: Sequence[Tensor | None], arrays: Sequence[Any]) -> int:
        types, values = {}, {}
        for name, x, array in zip(self.proto.input, inputs, arrays, strict=False):
            if x is not None:  # all floats as one: a module may have been cast to a dtype that the operator lacks
                kind = FLOAT if x.dtype.kind == "f" else onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
                types[name] = onnx.helper.make_tensor_type_proto(kind, x.shape)
            if array is not None:
                values[name] = onnx.numpy_helper.from_array(array)
        schema = onnx.defs.get_schema(self.proto.op_type, self.opsets[self.proto.domain], self.proto.domain)
        imports = [onnx.helper.make_opsetid(*pair) for pair in self.opsets.items()]
        try:
            results = infer_node_outputs(schema, self.proto, types, values, opset_imports=imports)
        except (InferenceError, IndexError, RuntimeError):  # the function of the operator will say it better
            return self._within(inputs)
        except onnx.checker.ValidationError as error:
            raise ValueError(
                f"GraphModule: inputs of a node must have the types of its schema, but got: {error}"
            ) from None
        index = SIZE_INPUT.get(self.proto.op_type)
        if index is not None and index < len(arrays) and arrays[index] is not None:
            return int(math.prod(arrays[index].tolist())) * 8
        width = max((x.dtype.itemsize for x in inputs if x is not None and x.dtype.kind == "f"), default=4)
        return (sum(map(bytes_of_type, results.values())) + self._within(inputs)) * max(width // 4, 1)

    def _within(self, inputs: Sequence[Tensor | None]) -> int:
        """The bytes of what the operator holds beside its results; 0 for inputs of a wrong rank."""
        if self.within is None:
            return 0
        options = {entry.name: onnx.helper.get_attribute_value(entry) for entry in self.proto.attribute}
        try:
            return 4 * self.within(options, [() if x is None else x.shape for x in inputs])
        except (IndexError, ValueError):  # the function of the operator will say it better
            return 0


def bytes_of_type(proto: onnx.TypeProto) -> int:
    """The bytes of a tensor of a type; axes of unknown size count once."""
    tensor = proto.tensor_type
    if tensor.elem_type not in onnx.TensorProto.DataType.values() or not tensor.elem_type:
        return 0
    sizes = [abs(dim.dim_value) if dim.HasField("dim_value") else 1 for dim in tensor.shape.dim[:MOST_AXES]]
    return math.prod(sizes) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
