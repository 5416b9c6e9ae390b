"""Normalisation."""

from __future__ import annotations

from needle import check, init
from needle.nn.module import Module, Parameter
from needle.ops import mean, reshape, sqrt


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
