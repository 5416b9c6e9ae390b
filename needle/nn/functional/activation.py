"""Activations under torch's names, with torch's derivatives at their kinks."""

from __future__ import annotations

import warnings

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import DTypeLike, real_dtype
from needle.ops import relu, sigmoid, tanh
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, DivScalar, MulScalar, as_dtype
from needle.ops.elementwise import RELU, Clip, Expm1, HardTanh, Sigmoid, Softplus
from needle.ops.logic import GREATER, LESS_EQUAL, WHERE
from needle.ops.operand import scalar_like, tensor
from needle.ops.reduce import LogSoftmax, Softmax, normalized

__all__ = [
    "elu",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "tanh",
]


def relu6(x: TensorLike) -> Tensor:
    """min(max(x, 0), 6) for each element of x (any shape); the derivative at 0 and at 6 is 0.

    Integers stay as they are. Raises `TypeError` for bools.
    """
    x, (low, high) = with_numbers("relu6", x, limits=(0.0, 6.0))
    return HardTanh(low, high)(x)


def hardtanh(x: TensorLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x (any shape) limited to [min_val, max_val]; the derivative at both ends is 0.

    For integers, which stay as they are, the limits lose their fractions.

    Raises `ValueError` if `min_val` exceeds `max_val` or an integer dtype does not hold the limits, `TypeError` for
    bools.
    """
    low, high = check.number("hardtanh", "min_val", min_val), check.number("hardtanh", "max_val", max_val)
    if low > high:
        raise ValueError(f"hardtanh: min_val must not exceed max_val, but got {min_val} and {max_val}")
    x, (low, high) = with_numbers("hardtanh", x, limits=(low, high))
    return HardTanh(low, high)(x)


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope · x, for x of any shape; the derivative at 0 is `negative_slope`.

    Raises `TypeError` unless the dtype of x is floating.

    Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models" (2013).
    """
    x = floating("leaky_relu", x)
    slope = check.number("leaky_relu", "negative_slope", negative_slope)
    zero = scalar_like(0, x)
    positive, others = as_dtype(GREATER(x, zero), x.dtype), as_dtype(LESS_EQUAL(x, zero), x.dtype)
    return MULTIPLY(x, ADD(positive, MulScalar(slope)(others)))


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha · (e ** x - 1), for x of any shape; the derivative at 0 is `alpha`.

    Raises `TypeError` unless the dtype of x is floating.

    Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units" (2016),
    equation 15.
    """
    x = floating("elu", x)
    alpha = check.number("elu", "alpha", alpha)
    return ADD(RELU(x), MulScalar(alpha)(Expm1()(Clip(None, 0)(x))))


def silu(x: TensorLike) -> Tensor:
    """x · sigmoid(x), also called swish, for x of any shape.

    Raises `TypeError` unless the dtype of x is floating.

    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016); Ramachandran, Zoph and Le, "Searching for Activation
    Functions" (2017).
    """
    x = floating("silu", x)
    return MULTIPLY(x, Sigmoid()(x))


def softplus(x: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e ** (beta · x)) / beta for x of any shape; x itself where beta · x exceeds `threshold`.

    Raises `ValueError` unless `beta` is positive, `TypeError` unless the dtype of x is floating.
    """
    x = floating("softplus", x)
    beta = check.number("softplus", "beta", beta, above=0)
    threshold = check.number("softplus", "threshold", threshold)
    scaled = x if beta == 1 else MulScalar(beta)(x)
    smooth = Softplus()(scaled)
    is_linear = GREATER(scaled, scalar_like(threshold, scaled))
    return WHERE(is_linear, x, smooth if beta == 1 else DivScalar(beta)(smooth))


def softmax(x: TensorLike, dim: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """e ** x / sum(e ** x) along axis `dim` of x, without overflow; a tensor () has the axis 0.

    x is cast to `dtype` first if one is passed; the result has that dtype. Without `dim` the axis is 0 for inputs of
    0, 1 or 3 axes and 1 otherwise, with a warning, as in torch.

    Raises `ValueError` if x has no such axis, `TypeError` unless the dtype is floating.
    """
    x, axis = _along_axis("softmax", x, dim, dtype)
    return normalized(Softmax, x, axis)


def log_softmax(x: TensorLike, dim: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """x - log(sum(e ** x)) along axis `dim` of x, without overflow; a tensor () has the axis 0.

    Options and errors as in `softmax`.
    """
    x, axis = _along_axis("log_softmax", x, dim, dtype)
    return normalized(LogSoftmax, x, axis)


def softmin(x: TensorLike, dim: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """`softmax` of -x: e ** -x / sum(e ** -x) along axis `dim`. Options and errors as in `softmax`."""
    x, axis = _along_axis("softmin", x, dim, dtype)
    return normalized(Softmax, NEGATE(x), axis)


def _along_axis(op: str, x: TensorLike, dim: int | None, dtype: DTypeLike | None) -> tuple[Tensor, int]:
    """x cast to `dtype`, and the axis `dim`: torch's choice if it is None."""
    x = tensor(op, x)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(f"{op}: dim was not passed, and axis {dim} of {x.ndim} was chosen", stacklevel=3)
    axis = check.axis(op, dim, x.ndim or 1, "dim")
    x = x if dtype is None else as_dtype(x, real_dtype(op, dtype))
    check.floats(op, x=x)
    return x, axis


def floating(op: str, x: TensorLike) -> Tensor:
    """x as a tensor of a floating dtype."""
    x = tensor(op, x)
    check.floats(op, x=x)
    return x


def with_numbers(op: str, x: TensorLike, **numbers: tuple[float, ...]) -> tuple[Tensor, tuple[float, ...]]:
    """x of a floating or integer dtype, and numbers called by that name; for integers without their fractions."""
    x, ((name, values),) = tensor(op, x), numbers.items()
    if x.dtype.kind not in "iu":
        check.floats(op, x=x)
        return x, values
    if not all(check.holds(x.dtype, value) for value in values):
        raise ValueError(f"{op}: {name} must lie in the range of {x.dtype}, but got {', '.join(map(str, values))}")
    return x, tuple(map(int, values))
