"""Pooling layers."""

from __future__ import annotations

from needle.nn import functional
from needle.nn.module import Module


class _Pool2d(Module):
    """Pooling of (N, C, H, W); the stride is the kernel size by default."""

    pool = None

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x):
        return type(self).pool(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """The largest element of each window: (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default."""

    pool = staticmethod(functional.max_pool2d)


class AvgPool2d(_Pool2d):
    """The mean of each window, padding counted as zeros: (N, C, H, W) -> (N, C, P, P)."""

    pool = staticmethod(functional.avg_pool2d)
