"""Variance, standard deviation and norms."""

from __future__ import annotations

import math
from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype, xp
from needle.kernels import Size
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, DivScalar, MulScalar, PowerScalar, as_dtype
from needle.ops.base import Array, Axes, Elementwise
from needle.ops.elementwise import Abs
from needle.ops.index import GetItem
from needle.ops.logic import EQUAL, LESS, NOT_EQUAL, WHERE
from needle.ops.operand import scalar_like, tensor
from needle.ops.reduce import Max, Mean, Min, Summation
from needle.ops.shape import Reshape
from needle.words import DeviationWords, ReductionWords, respelled

__all__ = ["norm", "std", "var"]


class Root(Elementwise):
    """The square root, with derivative 0 at 0."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return xp(x).sqrt(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        flat = EQUAL(node, scalar_like(0, node))
        slope = DIVIDE(out_grad, MulScalar(2)(WHERE(flat, scalar_like(1, node), node)))
        return WHERE(flat, scalar_like(0, slope), slope)


# ---- functions -------------------------------------------------------------------------------------------------------


def var(
    x: TensorLike, axes: Axes = None, *, keepdims: bool = False, correction: float = 1, unbiased: bool | None = None,
    **words: Unpack[DeviationWords],
) -> Tensor:  # fmt: skip
    """The variance of x `(*S)` over `axes`: squared distances from the mean, summed and divided by n - `correction`.

    By default it is torch's: 1 / (n - 1), unbiased for a sample. NumPy's default is 1 / n, `correction=0`, which batch
    and layer norm use, too; `np.var(x)` asks for it. `ddof` is NumPy's word, `unbiased=False` torch's for 0. Where
    n - `correction` is not positive the result is NaN, or infinite.

    Axes and shapes as in `summation`, but `keepdims` must be named: in torch `x.var(1, False)` means `unbiased`.

    float16 is computed in float32. Raises `TypeError` unless x is of floats, and as `summation`.
    """
    if words:
        given = {"axes": axes, "keepdims": keepdims, "correction": correction, "unbiased": unbiased}
        return respelled(var, words, x, **given)
    x = _floats("var", x)
    return as_dtype(_variance("var", x, axes, keepdims, correction, unbiased), x.dtype)


def std(
    x: TensorLike, axes: Axes = None, *, keepdims: bool = False, correction: float = 1, unbiased: bool | None = None,
    **words: Unpack[DeviationWords],
) -> Tensor:  # fmt: skip
    """The standard deviation of x `(*S)` over `axes`, the root of `var`; its derivative is 0 where it is 0."""
    if words:
        given = {"axes": axes, "keepdims": keepdims, "correction": correction, "unbiased": unbiased}
        return respelled(std, words, x, **given)
    x = _floats("std", x)
    return as_dtype(Root()(_variance("std", x, axes, keepdims, correction, unbiased)), x.dtype)


def norm(
    x: TensorLike, p: float | str = 2, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]
) -> Tensor:
    """The p-norm (Σ |x| ** p) ** (1 / p) of the elements of x `(*S)` over `axes`, torch's `norm`.

    p may be any number: infinity and -infinity give the largest and smallest magnitude, 0 the number of elements that
    are not 0, a constant; "fro" is 2. Axes and shapes as in `summation`. The derivative is 0 where the norm is 0, and
    in elements that are 0. Several axes are flattened: matrices have this norm, not the spectral one, NumPy's `ord=2`.

    float16 is computed in float32, and powers neither overflow nor vanish. Raises `TypeError` unless x is of floats, or
    for another p; `ValueError` for a NaN, for empty axes of a negative or infinite p, and as `summation`.
    """
    if words:
        return respelled(norm, words, x, p=p, axes=axes, keepdims=keepdims)
    x = _floats("norm", x)
    order = 2.0 if p == "fro" else check.number("norm", "p", p)
    reduced = check.reduced_axes("norm", axes, x.ndim, keepdims)
    if (order < 0 or order == math.inf) and any(x.shape[i] == 0 for i in reduced):
        raise ValueError(f"norm: axes must hold at least one element for p={p}, but got {reduced} of shape {x.shape}")
    y = as_dtype(vector_norm(as_dtype(x, compute_dtype(x.dtype)), order, reduced), x.dtype)
    return y if keepdims else _squeezed(y, reduced)


# ---- of tensors ------------------------------------------------------------------------------------------------------


def _floats(op: str, x: TensorLike) -> Tensor:
    """An operand, which must be of floats."""
    x = tensor(op, x)
    check.floats(op, x=x)
    return x


def _variance(
    op: str, x: Tensor, axes: Axes, keepdims: bool, correction: float, unbiased: bool | None
) -> Tensor:
    """The variance, for float16 in float32."""
    reduced = check.reduced_axes(op, axes, x.ndim, keepdims)
    if unbiased is not None:
        correction = int(check.instance(op, "unbiased", unbiased, bool))
    count = math.prod(x.shape[i] for i in reduced)
    freedom = max(0.0, count - check.number(op, "correction", correction))
    centred = _centred(as_dtype(x, compute_dtype(x.dtype)), reduced)
    return DivScalar(freedom)(Summation(reduced, keepdims)(MULTIPLY(centred, centred)))


def _centred(x: Tensor, axes: Size) -> Tensor:
    """x minus its mean. The first element is subtracted before, so that a constant row gives 0, whatever its size."""
    if x.size:
        first = GetItem(tuple(slice(0, 1) if i in axes else slice(None) for i in range(x.ndim)))(x.detach())
        x = ADD(x, NEGATE(first))
    return ADD(x, NEGATE(Mean(axes, keepdims=True)(x)))


def vector_norm(x: Tensor, p: float, axes: Size) -> Tensor:
    """The p-norm of x over `axes`, which remain with size 1.

    The largest magnitude is factored out, so that no power overflows or vanishes. It is a constant for the graph, since
    the norm does not depend on it.
    """
    total, zero, one = Summation(axes, keepdims=True), scalar_like(0, x), scalar_like(1, x)
    if p == 0:
        return total(as_dtype(NOT_EQUAL(x, zero), x.dtype))
    size = Abs()(x)
    if p == 1 or not x.size:
        return total(size)
    if math.isinf(p):
        return (Max if p > 0 else Min)(axes, keepdims=True)(size)
    extreme = (Max if p > 0 else Min)(axes, keepdims=True)(size.detach())
    usable = MULTIPLY(NOT_EQUAL(extreme, zero), LESS(extreme, scalar_like(math.inf, x)))
    scale = WHERE(usable, extreme, one)
    if p == 2:
        return MULTIPLY(Root()(total(PowerScalar(2)(DIVIDE(x, scale)))), scale)
    is_zero, nonzero = EQUAL(extreme, zero), NOT_EQUAL(x, zero)
    powers = WHERE(nonzero, PowerScalar(p)(WHERE(nonzero, DIVIDE(size, scale), one)), zero)
    length = MULTIPLY(PowerScalar(1 / p)(ADD(total(powers), as_dtype(is_zero, x.dtype))), scale)
    return WHERE(is_zero, zero, length)


def _squeezed(x: Tensor, axes: Size) -> Tensor:
    return Reshape([n for i, n in enumerate(x.shape) if i not in axes])(x)
