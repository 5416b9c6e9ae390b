"""Smooth activations of exponentials, and gated linear units, under torch's names. float16 is computed in float32."""

from __future__ import annotations

import math
from typing import Any

from needle import check, ops
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.kernels import at
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, AddScalar, DivScalar, MulScalar, as_dtype
from needle.ops.dtypes import DEFAULT_FLOAT
from needle.ops.elementwise import RELU, Abs, Clip, Expm1, Sigmoid, Softplus, Tanh
from needle.ops.operand import tensor

__all__ = ["celu", "gelu", "glu", "logsigmoid", "mish", "selu", "softsign", "tanhshrink"]

# Of Klambauer et al. (2017), equation 14.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
GELU_FORMS = ("none", "tanh")
_NEAR = Clip(-40, 40)  # beyond it, the normal distribution is 0 or 1 in every dtype; powers must not overflow


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x · Φ(x) for x of any shape, where Φ is the distribution of the standard normal law.

    Φ is (1 + erf(x / √2)) / 2; with `approximate="tanh"`, (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2.

    Raises `ValueError` for another `approximate`, `TypeError` unless the dtype of x is floating.

    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2.
    """
    x, dtype = wide("gelu", x)
    check.one_of("gelu", "approximate", approximate, GELU_FORMS)
    near = _NEAR(x)
    if approximate == "none":
        share = MulScalar(0.5)(AddScalar(1)(ops.erf(MulScalar(math.sqrt(0.5))(near))))
    else:  # (1 + tanh u) / 2 = sigmoid(2u), which keeps small values exact
        cubic = ADD(near, MulScalar(0.044715)(MULTIPLY(near, MULTIPLY(near, near))))
        share = Sigmoid()(MulScalar(math.sqrt(8 / math.pi))(cubic))
    return as_dtype(MULTIPLY(x, share), dtype)


def selu(x: TensorLike) -> Tensor:
    """1.0507… · `elu(x, 1.6732…)` for x of any shape: mean 0 and variance 1 are its fixed point.

    The derivative at 0 is that from below. Raises `TypeError` unless the dtype of x is floating.

    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-Normalizing Neural Networks" (2017), equations 2 and 14.
    """
    x, dtype = wide("selu", x)
    below = MulScalar(SELU_SCALE * SELU_ALPHA)(Expm1()(Clip(None, 0)(x)))
    return as_dtype(ADD(MulScalar(SELU_SCALE)(RELU(x)), below), dtype)


def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha · (e ** (x / alpha) - 1), for x of any shape; the derivative at 0 is 1.

    Raises `ValueError` if `alpha` is 0, `TypeError` unless the dtype of x is floating.

    Barron, "Continuously Differentiable Exponential Linear Units" (2017), equation 2.
    """
    x, dtype = wide("celu", x)
    alpha = check.nonzero("celu", "alpha", alpha)
    return as_dtype(ADD(RELU(x), MulScalar(alpha)(Expm1()(DivScalar(alpha)(Clip(None, 0)(x))))), dtype)


def mish(x: TensorLike) -> Tensor:
    """x · tanh(log(1 + e ** x)) for x of any shape. Raises `TypeError` unless the dtype of x is floating.

    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function" (2019), equation 1.
    """
    x, dtype = wide("mish", x)
    return as_dtype(MULTIPLY(x, Tanh()(Softplus()(x))), dtype)


def softsign(x: TensorLike) -> Tensor:
    """x / (1 + |x|) for x of any shape; integers become float32. Raises `TypeError` for bools.

    Turian, Bergstra and Bengio, "Quadratic Features and Deep Architectures for Chunking" (2009).
    """
    x, dtype = wide("softsign", x, integers=True)
    return as_dtype(DIVIDE(x, AddScalar(1)(Abs()(x))), dtype)


def logsigmoid(x: TensorLike) -> Tensor:
    """log(1 / (1 + e ** -x)) for x of any shape, without overflow.

    Raises `TypeError` unless the dtype of x is floating.
    """
    x, dtype = wide("logsigmoid", x)
    return as_dtype(NEGATE(Softplus()(NEGATE(x))), dtype)


def tanhshrink(x: TensorLike) -> Tensor:
    """x - tanh(x) for x of any shape; integers become float32. Raises `TypeError` for bools."""
    x, dtype = wide("tanhshrink", x, integers=True)
    return as_dtype(ADD(x, NEGATE(Tanh()(x))), dtype)


def glu(x: TensorLike, dim: int = -1) -> Tensor:
    """a · sigmoid(b), where a and b are the halves of x along axis `dim`: (…, 2·n, …) -> (…, n, …).

    Raises `ValueError` if x has no such axis or its size is odd, `TypeError` unless the dtype of x is floating.

    Dauphin, Fan, Auli and Grangier, "Language Modeling with Gated Convolutional Networks" (2017), equation 1.
    """
    x, dtype = wide("glu", x)
    axis = check.axis("glu", dim, x.ndim, "dim")
    half, odd = divmod(x.shape[axis], 2)
    if odd:
        raise ValueError(f"glu: x must have an even size along axis {axis}, but got shape {x.shape}")
    value, gate = ops.getitem(x, at(axis, slice(half))), ops.getitem(x, at(axis, slice(half, None)))
    return as_dtype(MULTIPLY(value, Sigmoid()(gate)), dtype)


def wide(op: str, x: TensorLike, integers: bool = False) -> tuple[Tensor, Any]:
    """x as a floating tensor, float16 and, if allowed, `integers` as float32, and the dtype of the result."""
    x = tensor(op, x)
    if integers and x.dtype.kind in "iu":
        x = as_dtype(x, DEFAULT_FLOAT)
    check.floats(op, x=x)
    return as_dtype(x, compute_dtype(x.dtype)), x.dtype
