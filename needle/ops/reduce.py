"""Reductions over any axes: one axis, several, or None for all. `keepdims` keeps them with size 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Unpack

from needle import check, kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import compute_dtype, cpu, xp
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, AddScalar, DivScalar, as_dtype
from needle.ops.base import Array, Axes, result_dtype
from needle.ops.elementwise import Exp
from needle.ops.logic import EQUAL, WHERE
from needle.ops.operand import floating, scalar_like, tensor
from needle.ops.shape import Reshape, broadcast_like
from needle.words import AxisWords, IndexWords, ReductionWords, respelled

__all__ = [
    "LogSoftmax",
    "LogSumExp",
    "Summation",
    "argmax",
    "logsoftmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "softmax",
    "summation",
]

_normalized_axes = lru_cache(maxsize=1024)(check.axes)


class Reduction(TensorOp):
    """Base of reductions over `axes`."""

    def __init__(self, axes: Axes = None, keepdims: bool = False) -> None:
        self.axes, self.keepdims = tuple(axes) if isinstance(axes, list) else axes, keepdims

    def normalized_axes(self, x: Any) -> Size:
        """The reduced axes of x, none negative."""
        return _normalized_axes(type(self).__name__, self.axes, len(x.shape))

    def squeeze(self, reduced: Array, axes: Size) -> Array:
        """Remove the reduced axes, of size 1, from a raw array unless `keepdims`."""
        return reduced if self.keepdims else reduced.squeeze(axes)

    def unsqueeze(self, reduced: Tensor, x: Tensor) -> Tensor:
        """Put the reduced axes of x back, with size 1, into a tensor of the result's shape."""
        axes = self.normalized_axes(x)
        shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
        return reduced if reduced.shape == shape else Reshape(shape)(reduced)

    def infer(self, x: Any) -> Spec:
        axes = self.normalized_axes(x)
        sizes = [(i not in axes, n) for i, n in enumerate(x.shape)]
        return Spec(tuple(n if stays else 1 for stays, n in sizes if stays or self.keepdims), result_dtype(self, x))


class Summation(Reduction):
    """The sum."""

    saved_inputs = ()

    def compute(self, x: Array) -> Array:
        axes = self.normalized_axes(x)
        return self.squeeze(kernels.sums(x, axes), axes)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        return broadcast_like(self.unsqueeze(out_grad, x), x)


class Mean(Reduction):
    """The arithmetic mean."""

    saved_inputs = ()

    def compute(self, x: Array) -> Array:
        axes = self.normalized_axes(x)
        return self.squeeze(kernels.means(x, axes), axes)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        count = math.prod(x.shape[i] for i in self.normalized_axes(x))
        return broadcast_like(self.unsqueeze(DivScalar(count)(out_grad), x), x)


class _Extremum(Reduction):
    """Base of Max and Min: tied elements share the gradient evenly."""

    saves_output = True

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        tied = EQUAL(x, self.unsqueeze(node, x))
        count = Summation(self.axes, keepdims=True)(tied)
        share = self.unsqueeze(out_grad, x)
        wide = compute_dtype(share.dtype) if x.size > 2048 else share.dtype  # the counts that float16 holds exactly
        share = as_dtype(DIVIDE(as_dtype(share, wide), as_dtype(count, wide)), share.dtype)
        return WHERE(tied, share, scalar_like(0, share))


class Max(_Extremum):
    """The largest element."""

    def compute(self, x: Array) -> Array:
        return x.max(axis=self.normalized_axes(x), keepdims=self.keepdims)


class Min(_Extremum):
    """The smallest element."""

    def compute(self, x: Array) -> Array:
        return x.min(axis=self.normalized_axes(x), keepdims=self.keepdims)


class LogSumExp(Reduction):
    """log(sum(exp(x))), shifted by the maximum so that nothing overflows."""

    saves_output = True

    def compute(self, x: Array) -> Array:
        axes = self.normalized_axes(x)
        wide = x.astype(compute_dtype(x.dtype), copy=False)
        top = wide.max(axis=axes, keepdims=True)
        top = xp(x).where(xp(x).isfinite(top), top, 0)
        y = xp(x).log(kernels.sums(xp(x).exp(wide - top), axes)) + top
        return self.squeeze(y if wide is x else y.astype(x.dtype), axes)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        dtype = compute_dtype(x.dtype)
        wide, y, grad = (as_dtype(value, dtype) for value in (x, self.unsqueeze(node, x), self.unsqueeze(out_grad, x)))
        return as_dtype(MULTIPLY(grad, Exp()(ADD(wide, NEGATE(y)))), x.dtype)


class _AlongAxis(TensorOp):
    """Base of ops along one axis; their gradients read the result."""

    saved_inputs, saves_output = (), True

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape, result_dtype(self, x))


class LogSoftmax(_AlongAxis):
    """x - logsumexp(x) along one axis."""

    def compute(self, x: Array) -> Array:
        wide = x.astype(compute_dtype(x.dtype), copy=False)
        shifted = wide - wide.max(axis=self.axis, keepdims=True)
        y = shifted - xp(x).log(kernels.sums(xp(x).exp(shifted), (self.axis % x.ndim,)))
        return y if wide is x else y.astype(x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        wide, y = (as_dtype(value, compute_dtype(node.dtype)) for value in (out_grad, node))
        total = Summation(self.axis, keepdims=True)(wide)
        return as_dtype(ADD(wide, NEGATE(MULTIPLY(Exp()(y), total))), node.dtype)

    def compute_gradient(self, out_grad: Array, y: Array, x: Array, *, needed: Sequence[bool]) -> tuple[Array]:
        """The gradient in place, in the memory order of y; of float16 in float32."""
        out_grad, y = (array.astype(compute_dtype(y.dtype), copy=False) for array in (out_grad, y))
        x_grad = xp(y).exp(y)
        x_grad *= -kernels.sums(out_grad, (self.axis % y.ndim,))
        x_grad += out_grad
        return (x_grad,)


class Softmax(_AlongAxis):
    """e ** x / sum(e ** x) along one axis, shifted by the maximum: more exact than exp(LogSoftmax)."""

    def compute(self, x: Array) -> Array:
        wide = x.astype(compute_dtype(x.dtype), copy=False)
        powers = xp(x).exp(wide - wide.max(axis=self.axis, keepdims=True))
        y = powers / kernels.sums(powers, (self.axis % x.ndim,))
        return y if wide is x else y.astype(x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        wide, y = (as_dtype(value, compute_dtype(node.dtype)) for value in (out_grad, node))
        weighted = MULTIPLY(wide, y)
        total = Summation(self.axis, keepdims=True)(weighted)
        return as_dtype(ADD(weighted, NEGATE(MULTIPLY(y, total))), node.dtype)


class ArgMax(TensorOp):
    """The index of the largest element, the first if tied; the result is a constant."""

    differentiable = False

    def __init__(self, axis: int, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def compute(self, x: Array) -> Array:
        index = x.argmax(self.axis)
        return xp(x).expand_dims(index, self.axis) if self.keepdims else index

    def infer(self, x: Any) -> Spec:
        shape = (*x.shape[: self.axis], *(1,) * self.keepdims, *x.shape[self.axis + 1 :])
        return Spec(shape, cpu().xp.dtype("int64"))


# ---- functions -------------------------------------------------------------------------------------------------------


def summation(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """The sum of x `(*S)` over `axes`: an axis, several, or None for all; an empty tuple sums nothing.

    The result lacks these axes, or keeps them with size 1 if `keepdims`. Integers and bools are summed in int64,
    float16 in float32, rounded once. The sum of no elements is 0.

    A tensor () has the axes 0 and -1, as in torch. Raises `TypeError` if x is not a tensor, array, list or number, or
    an axis not an integer or `keepdims` not a bool; `ValueError` for an axis that x lacks or that is named twice.
    """
    if words:
        return respelled(summation, words, x, axes=axes, keepdims=keepdims)
    x = tensor("summation", x)
    return Summation(check.reduced_axes("summation", axes, x.ndim, keepdims), keepdims)(x)


def mean(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """The arithmetic mean of x `(*S)` over `axes`. Axes, shapes and errors as in `summation`.

    Integers and bools become float32; float16 accumulates in float32. The mean of no elements is NaN.
    """
    if words:
        return respelled(mean, words, x, axes=axes, keepdims=keepdims)
    x = floating("mean", x)
    return Mean(check.reduced_axes("mean", axes, x.ndim, keepdims), keepdims)(x)


def max(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """The largest element of x `(*S)` over `axes`, of the same dtype. Axes, shapes and errors as in `summation`.

    Tied elements share the gradient evenly. A NaN makes NaN, and no gradient. Raises `ValueError` for empty axes.
    """
    if words:
        return respelled(max, words, x, axes=axes, keepdims=keepdims)
    x = tensor("max", x)
    return Max(_nonempty("max", x, check.reduced_axes("max", axes, x.ndim, keepdims)), keepdims)(x)


def min(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """The smallest element of x `(*S)` over `axes`, of the same dtype; ties, NaN and errors as in `max`."""
    if words:
        return respelled(min, words, x, axes=axes, keepdims=keepdims)
    x = tensor("min", x)
    return Min(_nonempty("min", x, check.reduced_axes("min", axes, x.ndim, keepdims)), keepdims)(x)


def logsumexp(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """log(sum(exp(x))) of x `(*S)` over `axes`. Axes, shapes and errors as in `summation`.

    The maximum m is subtracted first, log(sum(exp(x - m))) + m, so that nothing overflows. The gradient is out_grad ·
    softmax(x). If all elements are -infinity, so is the result, and its gradient is NaN.

    Dtypes as in `exp`; float16 is computed in float32. Over no elements it is -infinity.
    """
    if words:
        return respelled(logsumexp, words, x, axes=axes, keepdims=keepdims)
    x = floating("logsumexp", x)
    axes = check.reduced_axes("logsumexp", axes, x.ndim, keepdims)
    if any(x.shape[i] == 0 for i in axes):
        return AddScalar(-math.inf)(Summation(axes, keepdims)(x))
    return LogSumExp(axes, keepdims)(x)


def logsoftmax(x: TensorLike, axis: int = -1, **words: Unpack[AxisWords]) -> Tensor:
    """x - logsumexp(x) along one axis: `(*S) -> (*S)`, shifted by the maximum as in `logsumexp`. Dtypes as in `exp`.

    Its gradient out_grad - softmax(x) · sum(out_grad) reads the result alone. An axis with +infinity, or with nothing
    but -infinity, is NaN; -infinity beside finite elements stays.

    float16 is computed in float32. Raises `ValueError` for an axis that x lacks.
    """
    if words:
        return respelled(logsoftmax, words, x, axis=axis)
    x = floating("logsoftmax", x)
    return normalized(LogSoftmax, x, check.axis("logsoftmax", axis, x.ndim or 1))


def softmax(x: TensorLike, axis: int = -1, **words: Unpack[AxisWords]) -> Tensor:
    """e ** x / sum(e ** x) along one axis: `(*S) -> (*S)`. Shift, dtypes and errors as in `logsoftmax`.

    More exact than exp(logsoftmax(x)), where rounding errors of the exponent are magnified. An element of -infinity has
    probability 0; an axis of nothing else is NaN, and so is one with +infinity.
    """
    if words:
        return respelled(softmax, words, x, axis=axis)
    x = floating("softmax", x)
    return normalized(Softmax, x, check.axis("softmax", axis, x.ndim or 1))


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False, **words: Unpack[IndexWords]) -> Tensor:
    """The int64 index of the largest element along `axis`, the first if tied; a constant.

    `(*S)` -> the shape without `axis`, or with size 1 there if `keepdims`. None: the index in the flattened tensor. NaN
    counts as the largest.

    Raises `ValueError` for an axis that x lacks or that is empty, `TypeError` for several axes.
    """
    if words:
        return respelled(argmax, words, x, axis=axis, keepdims=keepdims)
    return extreme_index("argmax", ArgMax, x, axis, keepdims)


def extreme_index(op: str, op_class: type[ArgMax], x: TensorLike, axis: int | None, keepdims: bool) -> Tensor:
    """The index that `op_class` finds along `axis`, or in the flattened x."""
    x = tensor(op, x)
    check.instance(op, "keepdims", keepdims, bool)
    if axis is None or not x.ndim:
        _nonempty(op, x, check.reduced_axes(op, axis, x.ndim))
        index = op_class(0)(Reshape((x.size,))(x))
        return Reshape((1,) * x.ndim)(index) if keepdims else index
    (axis,) = _nonempty(op, x, (check.axis(op, axis, x.ndim),))
    return op_class(axis, keepdims)(x)


def normalized(kind: type[Softmax | LogSoftmax], x: Tensor, axis: int) -> Tensor:
    """Softmax or LogSoftmax along an axis of x, of which a tensor () has one; x itself if it is empty."""
    if not x.ndim:
        return Reshape(())(kind(0)(Reshape((1,))(x)))
    return kind(axis)(x) if x.size else x


def _nonempty(op: str, x: Tensor, axes: Size) -> Size:
    """`axes`, over which x must have at least one element."""
    if any(x.shape[i] == 0 for i in axes):
        raise ValueError(f"{op}: axes must hold at least one element, but got axes {axes} of shape {x.shape}")
    return axes
