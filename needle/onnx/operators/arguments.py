"""What operators share: numbers read from tensors, types, and the broadcasting of old opsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from needle import check
from needle.autograd import Tensor
from needle.backend import to_host
from needle.onnx.reading import DTYPES
from needle.onnx.registry import Node, operator

__all__ = ["axis_of", "dtype_of", "elementwise", "integers", "pairwise"]


def integers(x: Tensor) -> list[int]:
    """The elements of a tensor of whole numbers, such as a shape, in row-major order."""
    return [int(n) for n in to_host(x.array).ravel().tolist()]


def axis_of(node: Node, rank: int, name: str = "axis") -> int:
    """The axis of `rank` that an attribute names, counted from the start. Raises `ValueError` for another."""
    return check.axis(str(node), node[name], rank, name)


def dtype_of(node: Node, name: str) -> str:
    """The dtype that an attribute names by its number in ONNX, or by its word before opset 6.

    Raises `TypeError` for a type that needle lacks.
    """
    number = node[name]
    if isinstance(number, str):
        number = onnx.TensorProto.DataType.Value(number)
    if number not in DTYPES:
        known = onnx.TensorProto.DataType.Name(number) if number in onnx.TensorProto.DataType.values() else number
        raise TypeError(f"{node}: {name} must be a type of real numbers or bools, but got {known}")
    return DTYPES[number]


def elementwise(functions: Mapping[str, Callable[..., Tensor]]) -> None:
    """Register functions of the inputs alone, for every opset."""
    for name, function in functions.items():
        operator(name)(_of_inputs(function))


def pairwise(functions: Mapping[str, Callable[..., Tensor]], buffers: Sequence[int] = ()) -> None:
    """Register functions of two tensors that broadcast: by an attribute `axis` below opset 7, as NumPy from there."""
    for name, function in functions.items():
        operator(name, buffers=buffers)(_of_aligned(function))
        operator(name, since=7, buffers=buffers)(_of_inputs(function))


def _of_inputs(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, *inputs: function(*inputs)


def _of_aligned(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, a, b: function(a, _aligned(node, a, b))


def _aligned(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """b with axes of size 1 behind its own, so that its first axis meets axis `axis` of a."""
    if node["axis"] is None:
        return b
    return b.reshape((*b.shape, *(1,) * (a.ndim - axis_of(node, a.ndim) - b.ndim)))
