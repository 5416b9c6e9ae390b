"""Operators that reduce axes, that find the place of an extreme, and that accumulate along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from needle import check, ops
from needle.autograd import Tensor
from needle.init import full
from needle.onnx.operators.arguments import integers
from needle.onnx.registry import Node, operator

__all__: list[str] = []

Axes = tuple[int, ...] | None
Reduce = Callable[[Tensor, Axes, bool], Tensor]


def _reduction(name: str, function: Reduce, axes_since: int = 18) -> None:
    """Register a reduction whose axes are an attribute, and an input from version `axes_since` on."""

    @operator(name)
    def by_attribute(node: Node, x: Tensor) -> Tensor:
        return function(x, _axes(node["axes"]), bool(node["keepdims"]))

    @operator(name, since=axes_since)
    def by_input(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(None if axes is None else integers(axes))
        if chosen is None and node["noop_with_empty_axes"]:
            chosen = ()
        return function(x, chosen, bool(node["keepdims"]))


def _axes(axes: list[int] | None) -> Axes:
    return tuple(axes) if axes else None


def _in_floats(function: Reduce) -> Reduce:
    """The reduction, of integers in float64; the result has the dtype of x."""

    def reduce(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
        return function(x if x.dtype.kind == "f" else x.astype("float64"), axes, keepdims).astype(x.dtype)

    return reduce


def _extreme(function: Callable[..., Tensor], of_bools: Callable[..., Tensor], sign: int) -> Reduce:
    """The largest element (sign 1) or the smallest (-1); of no elements the end of the dtype's range."""

    def reduce(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
        if x.dtype.kind == "b":
            return of_bools(x, axes, keepdims)
        shape = ops.summation(x, axes, keepdims).shape if 0 in x.shape else (1,)
        if x.size or 0 in shape:
            return function(x, axes, keepdims)
        return full(shape, _end(x, -sign), device=x.device, dtype=x.dtype)

    return reduce


def _end(x: Tensor, sign: int) -> Any:
    """The largest number of a dtype (sign 1), or the smallest (-1)."""
    if x.dtype.kind == "f":
        return sign * float("inf")
    limits = x.device.xp.iinfo(x.dtype)
    return int(limits.max if sign > 0 else limits.min)


def _sum(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    return ops.summation(x, axes, keepdims).astype(x.dtype)


def _sum_of_squares(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    return _sum(ops.square(x), axes, keepdims)


def _norm(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    return ops.abs(x) if axes == () else ops.norm(x, 2, axes, keepdims)


_reduction("ReduceSum", _sum, axes_since=13)
_reduction("ReduceMean", _in_floats(ops.mean))
_reduction("ReduceMax", _extreme(ops.max, ops.any, 1))
_reduction("ReduceMin", _extreme(ops.min, ops.all, -1))
_reduction("ReduceProd", lambda x, axes, keepdims: ops.prod(x, axes, keepdims).astype(x.dtype))
_reduction("ReduceL1", lambda x, axes, keepdims: _sum(ops.abs(x), axes, keepdims))
_reduction("ReduceL2", _in_floats(_norm))
_reduction("ReduceLogSum", _in_floats(lambda x, axes, keepdims: ops.log(ops.summation(x, axes, keepdims))))
_reduction("ReduceLogSumExp", _in_floats(ops.logsumexp))
_reduction("ReduceSumSquare", _sum_of_squares)


@operator("ArgMax")
def argmax(node: Node, x: Tensor) -> Tensor:
    return _place(node, x, ops.argmax)


@operator("ArgMin")
def argmin(node: Node, x: Tensor) -> Tensor:
    return _place(node, x, ops.argmin)


def _place(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    """The index of an extreme along an axis: of tied ones the first, or the last, which is the first from behind."""
    axis, keepdims = node["axis"], bool(node["keepdims"])
    if node.opset < 12 or not node["select_last_index"]:
        return function(x, axis, keepdims)
    behind = function(ops.flip(x, axis), axis, keepdims)
    return ops.subtract(x.shape[axis] - 1, behind)


@operator("CumSum")
def cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    return _accumulated(node, x, axis, ops.cumsum, 0)


@operator("CumProd")
def cumprod(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    return _accumulated(node, x, axis, ops.cumprod, 1)


def _accumulated(node: Node, x: Tensor, axis: Tensor, function: Callable[..., Tensor], start: int) -> Tensor:
    """Sums or products along an axis, from `start`: from its other end, or without each element, on request."""
    (along,) = check.axes(str(node), integers(axis), x.ndim)
    ordered = ops.flip(x, along) if node["reverse"] else x
    if node["exclusive"] and x.shape[along]:  # one step later
        ordered = ops.pad(ordered, [(1, -1) if i == along else (0, 0) for i in range(x.ndim)], start)
    totals = function(ordered, along).astype(x.dtype)
    return ops.flip(totals, along) if node["reverse"] else totals
