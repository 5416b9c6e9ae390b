"""Products over axes, and sums and products that run along an axis."""

from __future__ import annotations

import math
from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import compute_dtype, cpu, xp
from needle.graph import Spec
from needle.ops.arithmetic import MULTIPLY, as_dtype
from needle.ops.base import Array, Axes
from needle.ops.copies import apart
from needle.ops.index import GetItem
from needle.ops.joining import Concatenate
from needle.ops.operand import tensor
from needle.ops.scatter import with_axis
from needle.ops.shape import Pad, Permute, Reshape
from needle.words import AxisWords, ReductionWords, respelled

__all__ = ["cumprod", "cumsum", "prod"]

# What floats accumulate in: as torch's on the CPU.
_WIDER = {"float16": "float32", "float32": "float64"}


class CumSum(TensorOp):
    """The sums of all elements up to each one along an axis; `reverse`: from each one on."""

    saved_inputs = ()

    def __init__(self, axis: int, reverse: bool = False) -> None:
        self.axis, self.reverse = axis, reverse

    def compute(self, x: Array) -> Array:
        namespace, dtype = xp(x), self.infer(x).dtype
        terms = namespace.flip(x, self.axis) if self.reverse else x
        sums = namespace.cumsum(terms, self.axis, dtype=_WIDER.get(dtype.name, dtype)).astype(dtype, copy=False)
        return namespace.flip(sums, self.axis) if self.reverse else sums

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape, x.dtype if x.dtype.kind == "f" else cpu().xp.dtype("int64"))

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return CumSum(self.axis, not self.reverse)(out_grad)


# ---- functions -------------------------------------------------------------------------------------------------------


def cumsum(x: TensorLike, axis: int | None = None, **words: Unpack[AxisWords]) -> Tensor:
    """The sums of all elements up to each one along `axis`: `(*S) -> (*S)`. None: of the flattened x, `(*S) -> (n,)`.

    Floats keep their dtype: float16 accumulates in float32, float32 in float64. Integers and bools become int64.

    Raises `ValueError` for an axis that x lacks.
    """
    if words:
        return respelled(cumsum, words, x, axis=axis)
    x = tensor("cumsum", x)
    if axis is None:
        return CumSum(0)(Reshape((x.size,))(x))
    line, axis = with_axis("cumsum", x, axis)
    return CumSum(axis)(line) if x.ndim else Reshape(())(CumSum(axis)(line))


def cumprod(x: TensorLike, axis: int | None = None, **words: Unpack[AxisWords]) -> Tensor:
    """The products of all elements up to each one along `axis`; axes, dtypes and errors as in `cumsum`.

    Computed by doubling: each element times the one before it, then two before it, then four. So derivatives of every
    order need no division and are right at zeros. float16 is multiplied in float32.
    """
    if words:
        return respelled(cumprod, words, x, axis=axis)
    x = tensor("cumprod", x)
    if axis is None:
        x, axis = Reshape((x.size,))(x), 0
    line, axis = with_axis("cumprod", x, axis)
    dtype = x.dtype if x.dtype.kind == "f" else cpu().xp.dtype("int64")
    products, step = as_dtype(line, compute_dtype(dtype)), 1
    while step < line.shape[axis]:
        shifted = Pad(tuple((step, -step) if i == axis else (0, 0) for i in range(line.ndim)), 1)(products)
        products, step = MULTIPLY(products, shifted), 2 * step
    return apart(as_dtype(products if x.ndim else Reshape(())(products), dtype), x)


def prod(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """The product of x `(*S)` over `axes`. Axes, shapes and errors as in `summation`; the product of no elements is 1.

    Computed by halves, (x₁ x₃)(x₂ x₄), so that derivatives of every order need no division and are right at zeros.
    Integers and bools become int64; float16 is multiplied in float32.
    """
    if words:
        return respelled(prod, words, x, axes=axes, keepdims=keepdims)
    x = tensor("prod", x)
    reduced = check.reduced_axes("prod", axes, x.ndim, keepdims)
    kept = tuple(i for i in range(x.ndim) if i not in reduced)
    dtype = x.dtype if x.dtype.kind == "f" else cpu().xp.dtype("int64")
    sizes = (*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in reduced))
    rows = Reshape(sizes)(Permute((*kept, *reduced))(as_dtype(x, compute_dtype(dtype))))
    if not rows.shape[-1]:
        rows = Pad(((0, 0),) * len(kept) + ((0, 1),), 1)(rows)
    while (n := rows.shape[-1]) > 1:
        half = n // 2
        first, second, rest = (
            GetItem((..., slice(start, stop)))(rows) for start, stop in ((0, half), (half, 2 * half), (2 * half, n))
        )
        product = MULTIPLY(first, second)
        rows = Concatenate(len(kept))(product, rest) if n % 2 else product
    shape = tuple(1 if i in reduced else n for i, n in enumerate(x.shape) if keepdims or i not in reduced)
    return apart(as_dtype(Reshape(shape)(rows), dtype), x)
