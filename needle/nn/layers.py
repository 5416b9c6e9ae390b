"""Layers without windows: linear maps, shapes, dropout."""

from __future__ import annotations

import math

from needle import check, init
from needle.nn import functional
from needle.nn.module import Module, Parameter
from needle.ops import reshape


class Linear(Module):
    """x @ weight + bias: (…, in) -> (…, out).

    `weight` (in, out) is drawn by kaiming_uniform of fan in, then `bias` (1, out) by kaiming_uniform of fan out.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype="float32"):
        super().__init__()
        self.in_features = check.integer("Linear", "in_features", in_features, least=1)
        self.out_features = check.integer("Linear", "out_features", out_features, least=1)
        options = {"device": device, "dtype": dtype}
        self.weight = Parameter(init.kaiming_uniform(in_features, out_features, **options))
        self.bias = Parameter(reshape(init.kaiming_uniform(out_features, 1, **options), (1, -1))) if bias else None

    def forward(self, x):
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"Linear: x must have {self.in_features} features in its last axis, but got {x.shape}")
        y = x @ self.weight
        if self.bias is None:
            return y
        return y + (self.bias if x.ndim > 1 else reshape(self.bias, (-1,)))

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """(N, …) -> (N, product of the rest)."""

    def forward(self, x):
        return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Identity(Module):
    """x itself."""

    def forward(self, x):
        return x


class Dropout(Module):
    """In training each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = check.number("Dropout", "p", p, least=0, most=1)

    def forward(self, x):
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"
