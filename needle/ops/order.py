"""Sorting, and the elements at the ends of the order."""

from __future__ import annotations

from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import cpu, xp
from needle.graph import Spec
from needle.ops.base import Array
from needle.ops.operand import tensor
from needle.ops.reduce import ArgMax, extreme_index
from needle.ops.scatter import TakeAlong, with_axis
from needle.ops.shape import Reshape
from needle.tensor_methods import Ordered
from needle.words import AxisWords, IndexWords, respelled

__all__ = ["argmin", "argsort", "sort", "topk"]


class ArgMin(ArgMax):
    """The index of the smallest element, the first if tied; the result is a constant."""

    def compute(self, x: Array) -> Array:
        index = x.argmin(self.axis)
        return xp(x).expand_dims(index, self.axis) if self.keepdims else index


class ArgSort(TensorOp):
    """The indices that sort along an axis, tied elements in their order; the result is a constant."""

    differentiable = False

    def __init__(self, axis: int, descending: bool) -> None:
        self.axis, self.descending = axis, descending

    def compute(self, x: Array) -> Array:
        namespace = xp(x)
        if not self.descending:
            return namespace.argsort(x, self.axis, kind="stable")
        order = namespace.argsort(namespace.flip(x, self.axis), self.axis, kind="stable")
        return x.shape[self.axis] - 1 - namespace.flip(order, self.axis)

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape, cpu().xp.dtype("int64"))


class ArgTop(ArgSort):
    """The first `count` indices of the order; where elements tie for the last place, any of them."""

    def __init__(self, axis: int, descending: bool, count: int) -> None:
        super().__init__(axis, descending)
        self.count = count

    def compute(self, x: Array) -> Array:
        namespace, n = xp(x), x.shape[self.axis]
        if not self.count:
            return namespace.zeros(self.infer(x).shape, "int64")
        split = namespace.argpartition(x, n - self.count if self.descending else self.count - 1, self.axis)
        ends = slice(n - self.count, n) if self.descending else slice(0, self.count)
        chosen = namespace.sort(split[(slice(None),) * self.axis + (ends,)], self.axis)
        take = TakeAlong(self.axis).compute
        return take(chosen, super().compute(take(x, chosen)))

    def infer(self, x: Any) -> Spec:
        return Spec((*x.shape[: self.axis], self.count, *x.shape[self.axis + 1 :]), cpu().xp.dtype("int64"))


# ---- functions -------------------------------------------------------------------------------------------------------


def argmin(
    x: TensorLike, axis: int | None = None, keepdims: bool = False, **words: Unpack[IndexWords]
) -> Tensor:
    """The int64 index of the smallest element along `axis`, the first if tied; a constant.

    Shapes and errors as in `argmax`. NaN counts as the smallest.
    """
    if words:
        return respelled(argmin, words, x, axis=axis, keepdims=keepdims)
    return extreme_index("argmin", ArgMin, x, axis, keepdims)


def argsort(x: TensorLike, axis: int = -1, descending: bool = False, **words: Unpack[AxisWords]) -> Tensor:
    """The int64 indices that sort x along `axis`: `(*S) -> (*S)`; a constant. Order and errors as in `sort`."""
    if words:
        return respelled(argsort, words, x, axis=axis, descending=descending)
    x = tensor("argsort", x)
    line, axis = with_axis("argsort", x, axis)
    indices = ArgSort(axis, check.instance("argsort", "descending", descending, bool))(line)
    return indices if x.ndim else Reshape(())(indices)


def sort(
    x: TensorLike, axis: int = -1, descending: bool = False, **words: Unpack[AxisWords]
) -> Ordered[Tensor]:
    """The elements in ascending order along `axis`, and their int64 indices in x: `(*S) -> (*S), (*S)`.

    NaN counts as the largest. Tied elements keep their order, also if `descending`. A gradient flows to the place that
    the element came from. The result is torch's pair, with names; NumPy's `sort` returns the first alone.

    >>> from needle import Tensor
    >>> values, indices = sort(Tensor([3.0, 1.0, 2.0], requires_grad=False))
    >>> values, indices
    (Tensor([1. 2. 3.]), Tensor([1 2 0]))
    >>> topk([3, 1, 2], 2).values
    Tensor([3 2])

    Raises `ValueError` for an axis that x lacks.
    """
    if words:
        return respelled(sort, words, x, axis=axis, descending=descending)
    return _first("sort", tensor("sort", x), None, axis, check.instance("sort", "descending", descending, bool))


def topk(
    x: TensorLike, k: int, axis: int = -1, largest: bool = True, **words: Unpack[AxisWords]
) -> Ordered[Tensor]:
    """The k largest elements along `axis`, largest first, and their indices: `(…, n, …) -> (…, k, …), (…, k, …)`.

    With `largest=False` the smallest, smallest first. Tied elements are in the order of x, but if some of them are left
    out, it may be any. NaN as in `sort`.

    Raises `ValueError` for an axis that x lacks, and unless k lies in [0, n]; `TypeError` if k is not an integer.
    """
    if words:
        return respelled(topk, words, x, k=k, axis=axis, largest=largest)
    k = check.integer("topk", "k", k, least=0)
    return _first("topk", tensor("topk", x), k, axis, check.instance("topk", "largest", largest, bool))


def _first(op: str, x: Tensor, count: int | None, axis: int, descending: bool) -> Ordered[Tensor]:
    """The first `count` elements in the order along `axis` (None: all), and their indices."""
    line, axis = with_axis(op, x, axis)
    if count is not None and count > line.shape[axis]:
        raise ValueError(f"{op}: k must be at most {line.shape[axis]}, the size of axis {axis}, but got {count}")
    indices = (ArgSort(axis, descending) if count is None else ArgTop(axis, descending, count))(line)
    values = TakeAlong(axis)(line, indices)
    if not x.ndim and count != 0:
        values, indices = Reshape(())(values), Reshape(())(indices)
    return Ordered(values, indices)
