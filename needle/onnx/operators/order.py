"""Operators whose results depend on order or equality of values: the largest, the unique, the non-zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from needle import ops
from needle.autograd import Tensor
from needle.kernels import at
from needle.onnx.operators.arguments import axis_of, integers
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("TopK")
def topk_by_attribute(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    return _first(node, x, node["k"], largest=True)


@operator("TopK", since=10)
def topk(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    return _first(node, x, integers(k)[0], largest=node.opset < 11 or bool(node["largest"]))


def _first(node: Node, x: Tensor, count: int, *, largest: bool) -> tuple[Tensor, ...]:
    """The first elements in the order along an axis, and their indices. `topk` leaves open which of tied ones stay."""
    axis = axis_of(node, x.ndim)
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"{node}: k must lie in [0, {x.shape[axis]}], the size of axis {axis}, but got {count}")
    values, indices = ops.sort(x, axis, largest)
    return values[at(axis, slice(count))], indices[at(axis, slice(count))]


@operator("NonZero")
def nonzero(node: Node, x: Tensor) -> Tensor:
    """The indices of elements other than 0, (axes, n), in row-major order."""
    array = x.numpy()
    places = np.array(array.nonzero()) if x.ndim else np.zeros((0, int(bool(array))))
    return _indices(places, x)


@operator("Unique")
def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """The unique elements or slices along an axis, where each is first, where each of x is among them, and counts."""
    x, axis = (x.reshape(-1), 0) if node["axis"] is None else (x, axis_of(node, x.ndim))
    _, first, inverse, counts = np.unique(x.numpy(), True, True, True, axis=axis)
    if not node["sorted"]:
        order = np.argsort(first)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    places = (_indices(array, x) for array in (first, inverse, counts))
    return x[at(axis, first)], *places


def _indices(places: Any, like: Tensor) -> Tensor:
    return Tensor(places, dtype="int64", device=like.device, requires_grad=False)
