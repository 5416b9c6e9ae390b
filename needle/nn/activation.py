"""Activations: modules around the functions of the same names."""

from __future__ import annotations

from needle import check
from needle.nn import functional
from needle.nn.module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return functional.relu(x)


class Sigmoid(Module):
    """1 / (1 + e ** -x)."""

    def forward(self, x):
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return functional.tanh(x)


class SiLU(Module):
    """x · sigmoid(x), also called swish."""

    def forward(self, x):
        return functional.silu(x)


class Hardtanh(Module):
    """x limited to [min_val, max_val]; see `functional.hardtanh`."""

    def __init__(self, min_val=-1.0, max_val=1.0):
        super().__init__()
        check.number("Hardtanh", "max_val", max_val, above=check.number("Hardtanh", "min_val", min_val))
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x):
        return functional.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self):
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self):
        super().__init__(0.0, 6.0)

    def extra_repr(self):
        return ""


class LeakyReLU(Module):
    """x where it is positive, else negative_slope · x."""

    def __init__(self, negative_slope=0.01):
        super().__init__()
        check.number("LeakyReLU", "negative_slope", negative_slope)
        self.negative_slope = negative_slope

    def forward(self, x):
        return functional.leaky_relu(x, self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where it is positive, else alpha · (e ** x - 1)."""

    def __init__(self, alpha=1.0):
        super().__init__()
        check.number("ELU", "alpha", alpha)
        self.alpha = alpha

    def forward(self, x):
        return functional.elu(x, self.alpha)

    def extra_repr(self):
        return f"alpha={self.alpha}"


class Softplus(Module):
    """log(1 + e ** (beta · x)) / beta, and x itself where beta · x exceeds `threshold`."""

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__()
        check.number("Softplus", "beta", beta, above=0)
        check.number("Softplus", "threshold", threshold)
        self.beta, self.threshold = beta, threshold

    def forward(self, x):
        return functional.softplus(x, self.beta, self.threshold)

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class _Softmax(Module):
    """A function along the axis `dim`."""

    def __init__(self, dim=None):
        super().__init__()
        self.dim = dim if dim is None else check.integer(type(self).__name__, "dim", dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(_Softmax):
    """e ** x / sum(e ** x) along the axis `dim`; see `functional.softmax`."""

    def forward(self, x):
        return functional.softmax(x, self.dim)


class LogSoftmax(_Softmax):
    """x - log(sum(e ** x)) along the axis `dim`; see `functional.softmax`."""

    def forward(self, x):
        return functional.log_softmax(x, self.dim)
