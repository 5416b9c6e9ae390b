"""Activations: one layer for each function of `functional.activation`, elementwise or along one axis.

Results have the shape and dtype of x, which must be floating (TypeError otherwise).
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.module import Module

__all__ = [
    "ELU",
    "Hardtanh",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Tanh",
]


class ReLU(Module):
    """max(x, 0), of any shape; the derivative at 0 is 0."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.relu(x)


class Sigmoid(Module):
    """1 / (1 + e ** -x), of any shape."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent of x, of any shape."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.tanh(x)


class SiLU(Module):
    """x · sigmoid(x), of any shape; also called swish.

    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016); Ramachandran, Zoph and Le, "Searching for Activation
    Functions" (2017).
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.silu(x)


class Hardtanh(Module):
    """x limited to [min_val, max_val], of any shape; the derivative at both ends is 0.

    Raises ValueError unless min_val < max_val.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        name = type(self).__name__
        check.number(name, "max_val", max_val, above=check.number(name, "min_val", min_val))
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: TensorLike) -> Tensor:
        return functional.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6), of any shape; the derivative at 0 and at 6 is 0.

    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017).
    """

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)

    def extra_repr(self) -> str:
        return ""


class LeakyReLU(Module):
    """x where it is positive, negative_slope · x elsewhere, of any shape; the derivative at 0 is `negative_slope`.

    Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models" (2013).
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        check.number("LeakyReLU", "negative_slope", negative_slope)
        self.negative_slope = negative_slope

    def forward(self, x: TensorLike) -> Tensor:
        return functional.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where it is positive, alpha · (e ** x - 1) elsewhere, of any shape; the derivative at 0 is `alpha`.

    Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units" (2016),
    equation 15.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        check.number("ELU", "alpha", alpha)
        self.alpha = alpha

    def forward(self, x: TensorLike) -> Tensor:
        return functional.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """log(1 + e ** (beta · x)) / beta, of any shape, and x itself where beta · x exceeds `threshold`.

    Dugas, Bengio, Bélisle, Nadeau and Garcia, "Incorporating Second-Order Functional Knowledge for Better Option
    Pricing" (2000). Raises ValueError unless beta is positive.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        check.number("Softplus", "beta", beta, above=0)
        check.number("Softplus", "threshold", threshold)
        self.beta, self.threshold = beta, threshold

    def forward(self, x: TensorLike) -> Tensor:
        return functional.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _Softmax(Module):
    """A function along the axis `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = None if dim is None else check.integer(type(self).__name__, "dim", dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Softmax):
    """e ** x / sum(e ** x) along the axis `dim`, without overflow: any shape -> the same shape.

    With `dim=None` the axis is 0 for inputs of 1 or 3 axes and 1 for others, with a warning, as in torch. Raises
    ValueError if x has no axis `dim`.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.softmax(x, self.dim)


class LogSoftmax(_Softmax):
    """x - log(sum(e ** x)) along the axis `dim`, without overflow: any shape -> the same shape.

    Default of `dim` and errors as in `Softmax`.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.log_softmax(x, self.dim)


class Softmin(_Softmax):
    """`Softmax` of -x along the axis `dim`: any shape -> the same shape. Default and errors as in `Softmax`."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.softmin(x, self.dim)
