"""Layers without windows: linear maps, activations, normalisation, dropout, and the loss."""

from __future__ import annotations

import math

from needle import check, init
from needle.nn import functional
from needle.nn.module import Module, Parameter
from needle.ops import mean, relu, reshape, sqrt


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


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return relu(x)


class Dropout(Module):
    """In training each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = check.number("Dropout", "p", p, least=0, most=1)

    def forward(self, x):
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class _BatchNorm(Module):
    """Per-channel normalisation of (N, C, …) by the statistics of the batch, in evaluation by running ones.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1. Variances are biased (divided by the count), in
    `running_var` too: running = (1 - momentum) * running + momentum * batch.
    """

    ranks = ()

    def __init__(self, dim, eps=1e-5, momentum=0.1, device=None, dtype="float32"):
        super().__init__()
        name = type(self).__name__
        self.dim = check.integer(name, "dim", dim, least=1)
        self.eps = check.number(name, "eps", eps, least=0)
        self.momentum = check.number(name, "momentum", momentum, least=0, most=1)
        self.weight = Parameter(init.ones(dim, device=device, dtype=dtype))
        self.bias = Parameter(init.zeros(dim, device=device, dtype=dtype))
        self.running_mean = init.zeros(dim, device=device, dtype=dtype)
        self.running_var = init.ones(dim, device=device, dtype=dtype)

    def forward(self, x):
        if x.ndim not in self.ranks or x.shape[1] != self.dim:
            ranks = " or ".join(map(str, self.ranks))
            raise ValueError(
                f"{type(self).__name__}: x must have {ranks} axes and {self.dim} channels, but got shape {x.shape}"
            )
        if not x.size:
            raise ValueError(f"{type(self).__name__}: the batch must not be empty, but got shape {x.shape}")
        channels = (1, -1) + (1,) * (x.ndim - 2)
        if self.training:
            axes = (0, *range(2, x.ndim))
            average = mean(x, axes)
            centred = x - reshape(average, channels)
            variance = mean(centred * centred, axes)
            self._track(self.running_mean, average)
            self._track(self.running_var, variance)
        else:
            centred, variance = x - reshape(self.running_mean, channels), self.running_var
        scale = self.weight / sqrt(variance + self.eps)
        return centred * reshape(scale, channels) + reshape(self.bias, channels)

    def _track(self, running, batch):
        """Move a running statistic towards that of a batch, in its own dtype."""
        step = batch.detach().astype(running.dtype) * self.momentum
        running.data = running * (1 - self.momentum) + step

    def extra_repr(self):
        return f"{self.dim}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__.replace("(N, C, …)", "(N, C) or (N, C, L)")
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__.replace("(N, C, …)", "(N, C, H, W)")
    ranks = (4,)


class CrossEntropyLoss(Module):
    """The mean of logsumexp(x) - x[target] over the batch: logits (N, C), integers (N,) -> ()."""

    def forward(self, x, target):
        return functional.cross_entropy(x, target)
