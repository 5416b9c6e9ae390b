"""Powers with a tensor as exponent (`needle.ops.arithmetic` has those with a number), squares and reciprocals."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorLike
from needle.backend import cpu
from needle.ops.arithmetic import DIVIDE, MULTIPLY, AddScalar, PowerScalar, as_dtype
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.dtypes import DEFAULT_FLOAT
from needle.ops.elementwise import Log, Sqrt
from needle.ops.logic import EQUAL, WHERE
from needle.ops.operand import are_known, floating, pair, scalar_like, tensor
from needle.ops.shape import sum_like

__all__ = ["EWisePow", "power", "reciprocal", "rsqrt", "square"]


class EWisePow(Elementwise):
    """a ** b; the derivative in b is 0 where a is 0."""

    def compute(self, a: Array, b: Array) -> Array:
        return a**b

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        dtype = node.dtype if node.dtype.kind == "f" else DEFAULT_FLOAT
        a, b = (as_dtype(x, dtype) for x in node.inputs)
        zero, one = scalar_like(0.0, b), scalar_like(1, b)
        a_grad = b_grad = None
        if a.requires_grad:  # b · a ** (b - 1), and 0 for b = 0 even where a is 0
            flat = EQUAL(b, scalar_like(0, b))
            slope = WHERE(flat, zero, MULTIPLY(b, EWisePow()(a, WHERE(flat, one, AddScalar(-1)(b)))))
            a_grad = sum_like(MULTIPLY(out_grad, slope), a)
        if b.requires_grad:  # a ** b · log a
            flat = EQUAL(a, scalar_like(0, a))
            slope = WHERE(flat, zero, MULTIPLY(EWisePow()(a, b), Log()(WHERE(flat, one, a))))
            b_grad = sum_like(MULTIPLY(out_grad, slope), b)
        return a_grad, b_grad


# ---- functions -------------------------------------------------------------------------------------------------------


def power(a: TensorLike, b: TensorLike) -> Tensor:
    """a ** b: `(*A), (*B) -> (*C)`. Broadcasting, dtypes and errors as in `add`; two bools make int64.

    The derivative in b, a ** b · log a, is 0 for a = 0 and NaN for a < 0; the derivative in a is 0 for b = 0.

    Raises `ValueError` for integers to a negative integer power (checked on the CPU only).
    """
    a, b = pair("power", a, b)
    if a.spec.dtype.kind == b.spec.dtype.kind == "b":
        a = as_dtype(a, "int64")
    if a.spec.dtype.kind != "f" and b.spec.dtype.kind == "i" and are_known(b) and b.size and b.array.min() < 0:
        raise ValueError(f"power: integer exponents of integers must be at least 0, but got {b.array.min()}")
    return EWisePow()(a, b)


def reciprocal(x: TensorLike) -> Tensor:
    """1 / x: `(*S) -> (*S)`; infinite at 0. Dtypes and errors as in `exp`."""
    x = floating("reciprocal", x)
    return DIVIDE(scalar_like(1, x), x)


def rsqrt(x: TensorLike) -> Tensor:
    """1 / sqrt(x): `(*S) -> (*S)`; infinite at 0, NaN below. Dtypes and errors as in `exp`."""
    x = floating("rsqrt", x)
    return DIVIDE(scalar_like(1, x), Sqrt()(x))


def square(x: TensorLike) -> Tensor:
    """x · x: `(*S) -> (*S)`, of the same dtype (bools: int64). Errors as in `exp`."""
    x = tensor("square", x)
    return PowerScalar(2)(as_dtype(x, cpu().xp.dtype("int64")) if x.dtype.kind == "b" else x)
