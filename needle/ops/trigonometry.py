"""Trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorLike
from needle.backend import xp
from needle.ops.arithmetic import DIVIDE, MULTIPLY, NEGATE, AddScalar
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.elementwise import Sqrt
from needle.ops.logic import EQUAL, WHERE
from needle.ops.operand import floating, pair, scalar_like
from needle.ops.shape import sum_like

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cos",
    "cosh",
    "hypot",
    "sin",
    "sinh",
    "tan",
]


class Sin(Elementwise):
    """The sine."""

    def compute(self, x: Array) -> Array:
        return xp(x).sin(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Cos()(node.inputs[0]))


class Cos(Elementwise):
    """The cosine."""

    def compute(self, x: Array) -> Array:
        return xp(x).cos(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, NEGATE(Sin()(node.inputs[0])))


class Tan(Elementwise):
    """The tangent."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return xp(x).tan(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, AddScalar(1)(MULTIPLY(node, node)))


class Asin(Elementwise):
    """The inverse sine."""

    def compute(self, x: Array) -> Array:
        return xp(x).arcsin(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(out_grad, _leg(node.inputs[0]))


class Acos(Elementwise):
    """The inverse cosine."""

    def compute(self, x: Array) -> Array:
        return xp(x).arccos(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return NEGATE(DIVIDE(out_grad, _leg(node.inputs[0])))


def _leg(x: Tensor) -> Tensor:
    """sqrt(1 - x ** 2), exact near 1."""
    return Sqrt()(MULTIPLY(AddScalar(1)(x), AddScalar(1)(NEGATE(x))))


class Atan(Elementwise):
    """The inverse tangent."""

    def compute(self, x: Array) -> Array:
        return xp(x).arctan(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        length = _length(node.inputs[0])
        return DIVIDE(DIVIDE(out_grad, length), length)


class Atan2(Elementwise):
    """The angle of the point (b, a); its derivative is 0 at the origin."""

    def compute(self, a: Array, b: Array) -> Array:
        return xp(a).arctan2(a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        length = HYPOT(a, b)
        length = WHERE(EQUAL(length, scalar_like(0, length)), scalar_like(1, length), length)
        return (
            sum_like(MULTIPLY(out_grad, DIVIDE(DIVIDE(b, length), length)), a) if a.requires_grad else None,
            sum_like(NEGATE(MULTIPLY(out_grad, DIVIDE(DIVIDE(a, length), length))), b) if b.requires_grad else None,
        )


class Sinh(Elementwise):
    """The hyperbolic sine."""

    def compute(self, x: Array) -> Array:
        return xp(x).sinh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Cosh()(node.inputs[0]))


class Cosh(Elementwise):
    """The hyperbolic cosine."""

    def compute(self, x: Array) -> Array:
        return xp(x).cosh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Sinh()(node.inputs[0]))


class Asinh(Elementwise):
    """The inverse hyperbolic sine."""

    def compute(self, x: Array) -> Array:
        return xp(x).arcsinh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(out_grad, _length(node.inputs[0]))


class Acosh(Elementwise):
    """The inverse hyperbolic cosine."""

    def compute(self, x: Array) -> Array:
        return xp(x).arccosh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        return DIVIDE(DIVIDE(out_grad, Sqrt()(AddScalar(-1)(x))), Sqrt()(AddScalar(1)(x)))


class Atanh(Elementwise):
    """The inverse hyperbolic tangent."""

    def compute(self, x: Array) -> Array:
        return xp(x).arctanh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        return DIVIDE(DIVIDE(out_grad, AddScalar(1)(x)), AddScalar(1)(NEGATE(x)))


class Hypot(Elementwise):
    """sqrt(a ** 2 + b ** 2), of which no square overflows."""

    saves_output = True

    def compute(self, a: Array, b: Array) -> Array:
        return xp(a).hypot(a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return tuple(
            sum_like(MULTIPLY(out_grad, DIVIDE(x, node)), x) if x.requires_grad else None for x in node.inputs
        )


HYPOT = Hypot()


def _length(x: Tensor) -> Tensor:
    """sqrt(1 + x ** 2)."""
    return HYPOT(scalar_like(1, x), x)


# ---- functions -------------------------------------------------------------------------------------------------------


def sin(x: TensorLike) -> Tensor:
    """The sine of x, in radians: `(*S) -> (*S)`; NaN at infinity. Dtypes and errors as in `exp`."""
    return Sin()(floating("sin", x))


def cos(x: TensorLike) -> Tensor:
    """The cosine of x, in radians: `(*S) -> (*S)`; NaN at infinity. Dtypes and errors as in `exp`."""
    return Cos()(floating("cos", x))


def tan(x: TensorLike) -> Tensor:
    """The tangent of x, in radians: `(*S) -> (*S)`; NaN at infinity. Dtypes and errors as in `exp`."""
    return Tan()(floating("tan", x))


def asin(x: TensorLike) -> Tensor:
    """The inverse sine, in [-π/2, π/2]: `(*S) -> (*S)`; NaN outside [-1, 1]. Dtypes and errors as in `exp`."""
    return Asin()(floating("asin", x))


def acos(x: TensorLike) -> Tensor:
    """The inverse cosine, in [0, π]: `(*S) -> (*S)`; NaN outside [-1, 1]. Dtypes and errors as in `exp`."""
    return Acos()(floating("acos", x))


def atan(x: TensorLike) -> Tensor:
    """The inverse tangent, in [-π/2, π/2]: `(*S) -> (*S)`. Dtypes and errors as in `exp`."""
    return Atan()(floating("atan", x))


def atan2(a: TensorLike, b: TensorLike) -> Tensor:
    """The angle in [-π, π] from the first axis to the point (b, a): `(*A), (*B) -> (*C)`, atan(a / b) for b > 0.

    Its derivative is 0 at the origin. Broadcasting, dtypes and errors as in `divide`.
    """
    return Atan2()(*map(floating, ("atan2",) * 2, pair("atan2", a, b)))


def hypot(a: TensorLike, b: TensorLike) -> Tensor:
    """sqrt(a ** 2 + b ** 2): `(*A), (*B) -> (*C)`; no square overflows. The derivative at the origin is NaN.

    Broadcasting, dtypes and errors as in `add`; also `TypeError` if neither is of floats.
    """
    a, b = pair("hypot", a, b)
    if "f" not in (a.dtype.kind, b.dtype.kind):
        raise TypeError(f"hypot: one operand must be of floats, but got dtypes {a.dtype} and {b.dtype}")
    return HYPOT(a, b)


def sinh(x: TensorLike) -> Tensor:
    """The hyperbolic sine: `(*S) -> (*S)`; overflows to infinity. Dtypes and errors as in `exp`."""
    return Sinh()(floating("sinh", x))


def cosh(x: TensorLike) -> Tensor:
    """The hyperbolic cosine: `(*S) -> (*S)`; overflows to infinity. Dtypes and errors as in `exp`."""
    return Cosh()(floating("cosh", x))


def asinh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic sine: `(*S) -> (*S)`. Dtypes and errors as in `exp`."""
    return Asinh()(floating("asinh", x))


def acosh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic cosine, at least 0: `(*S) -> (*S)`; NaN below 1. Dtypes and errors as in `exp`."""
    return Acosh()(floating("acosh", x))


def atanh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic tangent: `(*S) -> (*S)`; infinite at ±1, NaN beyond. Dtypes and errors as in `exp`."""
    return Atanh()(floating("atanh", x))
