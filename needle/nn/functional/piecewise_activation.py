"""Activations of linear and quadratic pieces, under torch's names, with torch's derivatives at their kinks."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn.functional.activation import floating, with_numbers
from needle.nn.functional.smooth_activation import wide
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, DivScalar, as_dtype
from needle.ops.elementwise import RELU, Clip, HardTanh
from needle.ops.logic import GREATER_EQUAL, LESS_EQUAL, WHERE
from needle.ops.operand import scalar_like, tensor
from needle.ops.shape import Reshape

__all__ = ["hardshrink", "hardsigmoid", "hardswish", "prelu", "softshrink", "threshold"]


def prelu(x: TensorLike, weight: TensorLike) -> Tensor:
    """x where positive, else weight · x, for x of any shape; the derivative in x at 0 is the weight.

    `weight` holds one number, of shape (1,) or (), or one per channel, (C,) for x (N, C, …).

    Raises `ValueError` if the weight has another shape, `TypeError` unless both share one floating dtype.

    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 1.
    """
    x = tensor("prelu", x)
    weight = tensor("prelu", weight, x)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ValueError(f"prelu: weight must hold 1 number or {channels}, one per channel, but got {weight.shape}")
    check.floats("prelu", x=x, weight=weight)
    slope = Reshape((weight.size, *(1,) * (x.ndim - 2)) if weight.size > 1 else ())(weight)
    return ADD(RELU(x), MULTIPLY(slope, Clip(None, 0)(x)))


def hardswish(x: TensorLike) -> Tensor:
    """x · min(max(x + 3, 0), 6) / 6 for x of any shape; the derivative at -3 is 0, at 3 it is 1.

    Raises `TypeError` unless the dtype of x is floating.

    Howard et al., "Searching for MobileNetV3" (2019), section 5.2.
    """
    x, dtype = wide("hardswish", x)
    bent = HardTanh(-3.0, 3.0)(x)  # x itself would make infinity · 0 in the derivative
    return as_dtype(ADD(MULTIPLY(bent, _hardsigmoid(bent)), Clip(0, None)(AddScalar(-3)(x))), dtype)


def hardsigmoid(x: TensorLike) -> Tensor:
    """min(max(x + 3, 0), 6) / 6 for x of any shape; the derivative at -3 and at 3 is 0.

    Raises `TypeError` unless the dtype of x is floating.

    Howard et al., "Searching for MobileNetV3" (2019), section 5.2.
    """
    return _hardsigmoid(floating("hardsigmoid", x))


def softshrink(x: TensorLike, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`, and 0 where |x| is at most that, for x of any shape; there the derivative is 0.

    Raises `ValueError` if `lambd` is negative, `TypeError` unless the dtype of x is floating.

    Donoho, "De-noising by Soft-thresholding" (1995), equation 1.2.
    """
    x = floating("softshrink", x)
    bound = check.number("softshrink", "lambd", lambd, least=0)
    return ADD(x, NEGATE(Clip(-bound, bound)(x)))


def hardshrink(x: TensorLike, lambd: float = 0.5) -> Tensor:
    """x where |x| exceeds `lambd`, else 0, for x of any shape; where it is 0, so is the derivative.

    A negative `lambd` changes nothing. Raises `TypeError` unless the dtype of x is floating.
    """
    x = floating("hardshrink", x)
    bound = check.number("hardshrink", "lambd", lambd)
    is_small = MULTIPLY(GREATER_EQUAL(x, scalar_like(-bound, x)), LESS_EQUAL(x, scalar_like(bound, x)))
    return WHERE(is_small, scalar_like(0, x), x)


def threshold(x: TensorLike, threshold: float, value: float) -> Tensor:
    """x where it exceeds `threshold`, else `value`, for x of any shape; there the derivative is 0.

    For integers, which stay as they are, both numbers lose their fractions.

    Raises `ValueError` if an integer dtype does not hold the numbers, `TypeError` for bools.
    """
    op = "threshold"
    options = check.number(op, "threshold", threshold), check.number(op, "value", value)
    x, (limit, value) = with_numbers(op, x, numbers=options)
    return WHERE(LESS_EQUAL(x, scalar_like(limit, x)), scalar_like(value, x), x)


def _hardsigmoid(x: Tensor) -> Tensor:
    return DivScalar(6)(HardTanh(0.0, 6.0)(AddScalar(3)(x)))
