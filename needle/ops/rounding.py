"""Rounding, and the quotients and remainders that it defines."""

from __future__ import annotations

from typing import Any

from needle import check, kernels
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype, xp
from needle.ops.arithmetic import DIVIDE, MULTIPLY, NEGATE, DivScalar, MulScalar, as_dtype
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.operand import are_known, pair, tensor
from needle.ops.shape import sum_like

__all__ = ["ceil", "floor", "floor_divide", "fmod", "remainder", "round", "trunc"]


class Rounded(Elementwise):
    """x rounded by the NumPy function of that name; the result is a constant."""

    differentiable = False

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, x: Array) -> Array:
        return getattr(xp(x), self.name)(x)


class FloorDivide(Elementwise):
    """The quotient a / b rounded down; the result is a constant."""

    differentiable = False

    def compute(self, a: Array, b: Array) -> Array:
        return kernels.floor_divide(a, b)


class Remainder(Elementwise):
    """a - b · floor(a / b): 0, or of the sign of b."""

    def compute(self, a: Array, b: Array) -> Array:
        return kernels.remainder(a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        return (
            sum_like(out_grad, a) if a.requires_grad else None,
            sum_like(NEGATE(MULTIPLY(out_grad, self.quotient(a, b))), b) if b.requires_grad else None,
        )

    def quotient(self, a: Tensor, b: Tensor) -> Tensor:
        """The whole number of times that b is taken from a."""
        return FloorDivide()(a, b)


class Fmod(Remainder):
    """a - b · trunc(a / b): 0, or of the sign of a."""

    def compute(self, a: Array, b: Array) -> Array:
        return kernels.fmod(a, b)

    def quotient(self, a: Tensor, b: Tensor) -> Tensor:
        return Rounded("trunc")(DIVIDE(a, b))


# ---- functions -------------------------------------------------------------------------------------------------------


def floor(x: TensorLike) -> Tensor:
    """x rounded down: `(*S) -> (*S)`, of the same dtype; a constant, whose derivative is 0.

    Integers stay as they are. Raises `TypeError` for bools.
    """
    return _rounded("floor", x)


def ceil(x: TensorLike) -> Tensor:
    """x rounded up: `(*S) -> (*S)`; as `floor`."""
    return _rounded("ceil", x)


def trunc(x: TensorLike) -> Tensor:
    """x rounded towards 0: `(*S) -> (*S)`; as `floor`."""
    return _rounded("trunc", x)


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """x rounded to the nearest number of `decimals` digits, halves to even ones: `(*S) -> (*S)`; as `floor`.

    A negative `decimals` counts digits before the point. The result is rint(x · 10 ** decimals) / 10 ** decimals, so
    that a half is what the product makes of it.

    Raises `TypeError` for bools, for integers with other `decimals` than 0, and unless `decimals` is an integer;
    `ValueError` unless it lies in [-308, 308].
    """
    decimals = check.integer("round", "decimals", decimals)
    if not -308 <= decimals <= 308:  # 10 ** 309 is no float
        raise ValueError(f"round: decimals must lie in [-308, 308], but got {decimals}")
    if not decimals:
        return _rounded("round", x)
    x = tensor("round", x)
    check.floats("round", x=x)
    up, down = MulScalar(10.0 ** abs(decimals)), DivScalar(10.0 ** abs(decimals))
    scale, back = (up, down) if decimals > 0 else (down, up)
    wide = as_dtype(x.detach(), compute_dtype(x.dtype))  # float16 would overflow
    return as_dtype(back(Rounded("rint")(scale(wide))), x.dtype)


def _rounded(op: str, x: TensorLike) -> Tensor:
    """x rounded to an integer by the function `op` of NumPy, but `rint` for round."""
    x = tensor(op, x)
    if x.dtype.kind == "b":
        raise TypeError(f"{op}: x must be of numbers, but got dtype bool")
    return Rounded({"round": "rint"}.get(op, op))(x) if x.dtype.kind == "f" else x.detach()


def floor_divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b rounded down, Python's a // b: `(*A), (*B) -> (*C)`; a constant. Broadcasting and dtypes as in `add`.

    Floats: division by zero returns an infinity or NaN. Raises `ValueError` for integers divided by 0 (checked on the
    CPU only), `TypeError` for two bools, and what `add` raises.
    """
    return FloorDivide()(*_division("floor_divide", a, b))


def remainder(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b · floor(a / b), Python's a % b: `(*A), (*B) -> (*C)`; 0, or of the sign of b.

    The derivative is 1 in a and -floor(a / b) in b. Broadcasting, dtypes and errors as in `floor_divide`.
    """
    return Remainder()(*_division("remainder", a, b))


def fmod(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b · trunc(a / b), C's fmod: `(*A), (*B) -> (*C)`; 0, or of the sign of a. As `remainder` otherwise."""
    return Fmod()(*_division("fmod", a, b))


def _division(op: str, a: TensorLike, b: TensorLike) -> tuple[Tensor, Tensor]:
    """Dividend and divisor; ValueError for integers divided by 0, on the CPU only: elsewhere it would wait."""
    a, b = pair(op, a, b)
    if a.dtype.kind == b.dtype.kind == "b":
        raise TypeError(f"{op}: one operand must not be of bools, but got two")
    if a.dtype.kind != "f" and b.dtype.kind != "f" and are_known(b) and not b.array.all():
        raise ValueError(f"{op}: the divisor of integers must not be 0, but got 0")
    return a, b
