"""Pooling over one, two or three axes, under torch's names."""

from __future__ import annotations

from needle.ops.pool import avg_pool, max_pool


def max_pool1d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, L) -> (N, C, P); the stride is the kernel size by default."""
    return max_pool("max_pool1d", x, 1, kernel_size, stride, padding)


def max_pool2d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default."""
    return max_pool("max_pool2d", x, 2, kernel_size, stride, padding)


def max_pool3d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, D, H, W) -> (N, C, P, P, P); default stride: the kernel size."""
    return max_pool("max_pool3d", x, 3, kernel_size, stride, padding)


def avg_pool1d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, L) -> (N, C, P)."""
    return avg_pool("avg_pool1d", x, 1, kernel_size, stride, padding)


def avg_pool2d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, H, W) -> (N, C, P, P)."""
    return avg_pool("avg_pool2d", x, 2, kernel_size, stride, padding)


def avg_pool3d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, D, H, W) -> (N, C, P, P, P)."""
    return avg_pool("avg_pool3d", x, 3, kernel_size, stride, padding)
