"""Elementwise functions, with torch's derivatives at their kinks. All but `maximum` and `minimum` are unary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from needle import kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import device_of, xp
from needle.ops.arithmetic import DIVIDE, MULTIPLY, NEGATE, AddScalar, MulScalar
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.logic import EQUAL, GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, WHERE
from needle.ops.operand import beside, constant, floating, number, pair, scalar_like, tensor
from needle.ops.shape import sum_like
from needle.words import BoundWords, respelled

__all__ = [
    "Exp",
    "Log",
    "ReLU",
    "Tanh",
    "abs",
    "clamped_log",
    "clip",
    "exp",
    "expm1",
    "hardtanh",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "tanh",
]

# ---- smooth functions ------------------------------------------------------------------------------------------------


class Exp(Elementwise):
    """e ** x."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return xp(x).exp(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, node)


class Expm1(Elementwise):
    """e ** x - 1, exact for small x; its derivative is not computed from the result, which is -1 for large -x."""

    def compute(self, x: Array) -> Array:
        return xp(x).expm1(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Exp()(node.inputs[0]))


class Log(Elementwise):
    """The natural logarithm."""

    def compute(self, x: Array) -> Array:
        return xp(x).log(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(out_grad, node.inputs[0])


class ClampedLog(Elementwise):
    """max(log x, -100); derivative 1 / max(x, 1e-12), for float16 1 / max(x, 2 ** -14), its smallest normal number."""

    def compute(self, x: Array) -> Array:
        zero = x == 0
        return xp(x).where(zero, -100, xp(x).maximum(xp(x).log(xp(x).where(zero, 1, x)), -100))

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        return DIVIDE(out_grad, Clip(1e-12 if x.dtype.itemsize > 2 else 2.0**-14, None)(x))


class Sqrt(Elementwise):
    """The square root."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return xp(x).sqrt(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(out_grad, MulScalar(2)(node))


class Tanh(Elementwise):
    """The hyperbolic tangent."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return xp(x).tanh(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, AddScalar(1)(NEGATE(MULTIPLY(node, node))))

    def compute_gradient(self, out_grad: Array, y: Array, x: Array, *, needed: Sequence[bool]) -> tuple[Array]:
        return (kernels.tanh_grad(y, out_grad),)


class Sigmoid(Elementwise):
    """1 / (1 + e ** -x)."""

    saved_inputs, saves_output = (), True

    def compute(self, x: Array) -> Array:
        return kernels.sigmoid(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, MULTIPLY(node, AddScalar(1)(NEGATE(node))))

    def compute_gradient(self, out_grad: Array, y: Array, x: Array, *, needed: Sequence[bool]) -> tuple[Array]:
        return (kernels.sigmoid_grad(y, out_grad),)


class Softplus(Elementwise):
    """log(1 + e ** x), which neither overflows nor vanishes before e ** x does."""

    def compute(self, x: Array) -> Array:
        return xp(x).log1p(xp(x).exp(-xp(x).abs(x))) + xp(x).maximum(x, 0)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Sigmoid()(node.inputs[0]))


# ---- functions with kinks --------------------------------------------------------------------------------------------


class Abs(Elementwise):
    """The absolute value; its derivative at 0 is 0."""

    def compute(self, x: Array) -> Array:
        return xp(x).abs(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(out_grad, Sign()(node.inputs[0]))


class Sign(Elementwise):
    """-1, 0 or 1; the result is a constant."""

    differentiable = False

    def compute(self, x: Array) -> Array:
        return device_of(x).sign(x)


class ReLU(Elementwise):
    """max(x, 0); zeros may have either sign, and the derivative at 0 is 0."""

    def compute(self, x: Array) -> Array:
        return kernels.relu(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return RELU_GRAD(out_grad, constant(node.inputs[0]))


class ReLUGrad(TensorOp):
    """y where x is positive, else 0, in the memory order of x."""

    saved_inputs = (1,)

    def compute(self, y: Array, x: Array) -> Array:
        return kernels.relu_grad(x, y)

    def infer(self, y: Any, x: Any) -> Any:
        return y

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return RELU_GRAD(out_grad, node.inputs[1]), None


class _Pairwise(Elementwise):
    """Base of Maximum and Minimum: where a and b are equal, each takes half of the gradient."""

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        zero = scalar_like(0, out_grad)
        half = WHERE(EQUAL(a, b), MulScalar(0.5)(out_grad), zero)
        wins = GREATER if isinstance(self, Maximum) else LESS
        return (
            sum_like(WHERE(wins(a, b), out_grad, half), a) if a.requires_grad else None,
            sum_like(WHERE(wins(b, a), out_grad, half), b) if b.requires_grad else None,
        )


class Maximum(_Pairwise):
    """The larger of a and b."""

    def compute(self, a: Array, b: Array) -> Array:
        return xp(a).maximum(a, b)


class Minimum(_Pairwise):
    """The smaller of a and b."""

    def compute(self, a: Array, b: Array) -> Array:
        return xp(a).minimum(a, b)


class Clip(Elementwise):
    """x limited to [low, high]; the derivative is 1 inside, ends included. None leaves a side open."""

    def __init__(self, low: float | None, high: float | None) -> None:
        self.low, self.high = low, high

    def compute(self, x: Array) -> Array:
        if self.low is None:
            return xp(x).minimum(x, self.high)  # what NumPy's clip does; CuPy's refuses bools with an open side
        return xp(x).maximum(x, self.low) if self.high is None else xp(x).clip(x, self.low, self.high)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        if self.low is not None:
            out_grad = MULTIPLY(out_grad, GREATER_EQUAL(x, scalar_like(self.low, x)))
        if self.high is not None:
            out_grad = MULTIPLY(out_grad, LESS_EQUAL(x, scalar_like(self.high, x)))
        return out_grad


class HardTanh(Clip):
    """x limited to [low, high]; the derivative is 1 inside, ends excluded."""

    low: float
    high: float

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        inside = MULTIPLY(GREATER(x, scalar_like(self.low, x)), LESS(x, scalar_like(self.high, x)))
        return MULTIPLY(out_grad, inside)


RELU, RELU_GRAD = ReLU(), ReLUGrad()

# ---- functions -------------------------------------------------------------------------------------------------------


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """The larger of a and b: `(*A), (*B) -> (*C)`. Broadcasting, dtypes and errors as in `add`.

    Where they are equal each takes half of the gradient. A NaN in either makes NaN, and no gradient.
    """
    return Maximum()(*pair("maximum", a, b))


def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """The smaller of a and b: `(*A), (*B) -> (*C)`; ties, NaN, dtypes and errors as in `maximum`."""
    return Minimum()(*pair("minimum", a, b))


def clip(x: TensorLike, low: float | None = None, high: float | None = None, **words: Unpack[BoundWords]) -> Tensor:
    """x limited to [low, high]: `(*S) -> (*S)`; None leaves a side open. The derivative is 1 inside, ends included.

    The bounds are numbers: a float bound makes float32 of integers and bools, an integer int64 of bools. NaN stays,
    with derivative 0. If `low` exceeds `high`, every element is `high`.

    Raises `TypeError` for another bound, `ValueError` if both bounds are None or one does not fit an integer dtype.
    """
    if words:
        return respelled(clip, words, x, low=low, high=high)
    x, (low, high) = _with_bounds("clip", x, low, high)
    if low is None and high is None:
        raise ValueError("clip: at least one bound must be given, but got low=None and high=None")
    return Clip(low, high)(x)


def hardtanh(x: TensorLike, low: float = -1, high: float = 1) -> Tensor:
    """x limited to [low, high]: `(*S) -> (*S)`; as `clip`, but with derivative 0 at the ends, and both bounds set."""
    x, (low, high) = _with_bounds("hardtanh", x, number("hardtanh", low), number("hardtanh", high))
    if low > high:
        raise ValueError(f"hardtanh: low must not exceed high, but got {low} and {high}")
    return HardTanh(low, high)(x)


def _with_bounds(op: str, x: TensorLike, *bounds: float | None) -> tuple[Tensor, list[Any]]:
    """x in the dtype of its arithmetic with the bounds, and these as numbers, None where there is none."""
    x, numbers = tensor(op, x), [bound if bound is None else number(op, bound) for bound in bounds]
    if x.dtype.kind != "f":
        for bound in numbers:
            x = x if bound is None else beside(op, x, bound)
    return x, numbers


def exp(x: TensorLike) -> Tensor:
    """e ** x: `(*S) -> (*S)`; overflows to infinity.

    Floats stay in their dtype, integers and bools become float32. Raises `TypeError` if x is not a tensor, array, list
    or number.
    """
    return Exp()(floating("exp", x))


def expm1(x: TensorLike) -> Tensor:
    """e ** x - 1: `(*S) -> (*S)`, with no cancellation for small x. Dtypes and errors as in `exp`."""
    return Expm1()(floating("expm1", x))


def clamped_log(x: TensorLike) -> Tensor:
    """max(log x, -100): `(*S) -> (*S)`, finite at 0, NaN below. Dtypes and errors as in `exp`.

    The derivative is 1 / max(x, 1e-12), for float16 1 / max(x, 2 ** -14). Torch's binary cross-entropy uses -100 and
    1e-12, too.
    """
    return ClampedLog()(floating("clamped_log", x))


def log(x: TensorLike) -> Tensor:
    """The natural logarithm: `(*S) -> (*S)`; -infinity at 0, NaN below. Dtypes and errors as in `exp`."""
    return Log()(floating("log", x))


def sqrt(x: TensorLike) -> Tensor:
    """The square root: `(*S) -> (*S)`; NaN below 0, derivative infinity at 0. Dtypes and errors as in `exp`."""
    return Sqrt()(floating("sqrt", x))


def abs(x: TensorLike) -> Tensor:
    """The absolute value: `(*S) -> (*S)`, of the same dtype; its derivative at 0 is 0."""
    return Abs()(tensor("abs", x))


def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1, NaN for NaN: `(*S) -> (*S)`, of the same dtype; a constant. Bools stay as they are."""
    x = tensor("sign", x)
    return x if x.spec.dtype.kind == "b" else Sign()(x)


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent: `(*S) -> (*S)`. Dtypes and errors as in `exp`."""
    return Tanh()(floating("tanh", x))


def sigmoid(x: TensorLike) -> Tensor:
    """1 / (1 + e ** -x): `(*S) -> (*S)`. Computed from e ** -|x|, which cannot overflow and keeps small results exact.

    Dtypes and errors as in `exp`.
    """
    return Sigmoid()(floating("sigmoid", x))


def softplus(x: TensorLike) -> Tensor:
    """log(1 + e ** x): `(*S) -> (*S)`. Dtypes and errors as in `exp`.

    Computed as max(x, 0) + log1p(e ** -|x|), which neither overflows nor vanishes before e ** x does.
    """
    return Softplus()(floating("softplus", x))


def relu(x: TensorLike) -> Tensor:
    """max(x, 0): `(*S) -> (*S)`, of the same dtype (bools: int64). NaN stays; the derivative is 0 at 0 and at NaN."""
    return RELU(tensor("relu", x))
