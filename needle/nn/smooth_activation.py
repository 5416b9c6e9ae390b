"""Layers of smooth activations: one for each function of `functional.smooth_activation`.

Results have the dtype of x, which must be floating (TypeError otherwise).
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.smooth_activation import GELU_FORMS
from needle.nn.module import Module

__all__ = ["CELU", "GELU", "GLU", "SELU", "LogSigmoid", "Mish", "Softsign", "Tanhshrink"]


class GELU(Module):
    """x · Φ(x), of any shape, where Φ is the distribution of the standard normal law.

    `approximate="tanh"` computes Φ from a hyperbolic tangent. Raises ValueError for another name than "none" and
    "tanh". Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate: str = check.one_of("GELU", "approximate", approximate, GELU_FORMS)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SELU(Module):
    """1.0507… · `elu(x, 1.6732…)`, of any shape: mean 0 and variance 1 are its fixed point.

    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-Normalizing Neural Networks" (2017), equations 2 and 14.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.selu(x)


class CELU(Module):
    """x where it is positive, alpha · (e ** (x / alpha) - 1) elsewhere, of any shape; the derivative at 0 is 1.

    Raises ValueError if `alpha` is 0. Barron, "Continuously Differentiable Exponential Linear Units" (2017), equation
    2.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        check.nonzero("CELU", "alpha", alpha)
        self.alpha = alpha

    def forward(self, x: TensorLike) -> Tensor:
        return functional.celu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Mish(Module):
    """x · tanh(log(1 + e ** x)), of any shape.

    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function" (2019), equation 1.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.mish(x)


class Softsign(Module):
    """x / (1 + |x|), of any shape.

    Turian, Bergstra and Bengio, "Quadratic Features and Deep Architectures for Chunking" (2009).
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.softsign(x)


class LogSigmoid(Module):
    """log(1 / (1 + e ** -x)), of any shape, without overflow."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.logsigmoid(x)


class Tanhshrink(Module):
    """x - tanh(x), of any shape."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.tanhshrink(x)


class GLU(Module):
    """a · sigmoid(b), where a and b are the halves of x along axis `dim`: (…, 2·n, …) -> (…, n, …).

    Raises ValueError if x has no such axis or its size is odd. Dauphin, Fan, Auli and Grangier, "Language Modeling with
    Gated Convolutional Networks" (2017), equation 1.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = check.integer("GLU", "dim", dim)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.glu(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
