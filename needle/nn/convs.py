"""Convolution layers, one body for all ranks."""

from __future__ import annotations

import math

from needle import check, init
from needle.kernels import Window
from needle.nn import functional
from needle.nn.module import Module, Parameter


class _Conv(Module):
    """Convolution with torch's weight layout and initialisation, over `rank` spatial axes."""

    rank = 0

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, device=None,
        dtype="float32"
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.in_channels = check.integer(name, "in_channels", in_channels, least=1)
        self.out_channels = check.integer(name, "out_channels", out_channels, least=1)
        self.kernel_size = check.sizes(name, "kernel_size", kernel_size, self.rank, least=1)
        window = Window.make(name, self.rank, stride, padding, dilation, groups)
        self.stride, self.dilation, self.groups = window.stride, window.dilation, window.groups
        self.padding = tuple(before for before, _ in window.padding)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups must divide in_channels and out_channels, but got groups={groups} for "
                f"{in_channels} and {out_channels}"
            )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(init.conv_fans(shape)[0])
        options = {"low": -bound, "high": bound, "device": device, "dtype": dtype}
        self.weight = Parameter(init.rand(*shape, **options))
        self.bias = Parameter(init.rand(out_channels, **options)) if bias else None

    def forward(self, x):
        convolution = getattr(functional, f"conv{self.rank}d")
        return convolution(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self):
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"padding={self.padding}"] * any(self.padding)
        parts += [f"dilation={self.dilation}"] * (set(self.dilation) != {1})
        parts += [f"groups={self.groups}"] * (self.groups != 1)
        parts += ["bias=False"] * (self.bias is None)
        return ", ".join(parts)


class Conv1d(_Conv):
    """`functional.conv1d` with weight (O, C/G, K) and bias (O,), both drawn uniformly within ± 1 / sqrt(C/G·K)."""

    rank = 1


class Conv2d(_Conv):
    """`functional.conv2d` with weight (O, C/G, K, K) and bias (O,), both drawn uniformly within ± 1 / sqrt(C/G·K·K)."""

    rank = 2


class Conv3d(_Conv):
    """`functional.conv3d` with weight (O, C/G, K, K, K) and bias (O,), drawn uniformly within ± 1 / sqrt(C/G·K·K·K)."""

    rank = 3
