"""Pooling over windows of the spatial axes."""

from __future__ import annotations

import math

from needle import check, kernels
from needle.autograd import TensorOp
from needle.kernels import Window
from needle.ops.arithmetic import cast
from needle.ops.conv import check_fit, check_floats
from needle.ops.operand import tensor


class MaxPool(TensorOp):
    """The largest element of each window: (N, C, *S) -> (N, C, *P); of equal ones the first takes the gradient."""

    reads_output = True

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, x):
        return kernels.max_windows(x, self.kernel, self.window)

    def gradient(self, out_grad, node):
        return ScatterToMax(self.kernel, self.window)(out_grad, node.inputs[0].detach(), node.detach())


class ScatterToMax(TensorOp):
    """Each y added at the first largest element of its window in x: (N, C, *P) -> (N, C, *S)."""

    reads_inputs = slice(1, None)

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, y, x, best):
        return kernels.scatter_to_max(y, x, best, self.kernel, self.window)

    def gradient(self, out_grad, node):
        return GatherAtMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class GatherAtMax(TensorOp):
    """The elements of g where x has the first largest element of each window: (N, C, *S) -> (N, C, *P)."""

    reads_inputs = slice(1, None)

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, g, x, best):
        return kernels.gather_at_max(g, x, best, self.kernel, self.window)

    def gradient(self, out_grad, node):
        return ScatterToMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class SumPool(TensorOp):
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""

    reads_inputs = False

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, x):
        return kernels.sum_windows(x, self.kernel, self.window)

    def gradient(self, out_grad, node):
        return SpreadPool(self.kernel, self.window, node.inputs[0].shape[2:])(out_grad)


class SpreadPool(TensorOp):
    """The transpose of SumPool: each y added to every element of its window: (N, C, *P) -> (N, C, *S)."""

    reads_inputs = False

    def __init__(self, kernel, window, size):
        self.kernel, self.window, self.size = kernel, window, size

    def compute(self, y):
        return kernels.spread_windows(y, self.kernel, self.window, self.size)

    def gradient(self, out_grad, node):
        return SumPool(self.kernel, self.window)(out_grad)


def max_pool(op, x, rank, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, *S) -> (N, C, *P); `stride` is the kernel size by default."""
    return MaxPool(*_window(op, x, rank, kernel_size, stride, padding))(tensor(op, x))


def avg_pool(op, x, rank, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, *S) -> (N, C, *P); sums of float16 are in float32."""
    x = tensor(op, x)
    kernel, window = _window(op, x, rank, kernel_size, stride, padding)
    addends = cast(x, "float32") if x.dtype == "float16" else x
    return cast(SumPool(kernel, window)(addends) / math.prod(kernel), x.dtype)


def _window(op, x, rank, kernel_size, stride, padding):
    """The kernel and the window of a pooling, checked against x."""
    x = tensor(op, x)
    if x.ndim != rank + 2:
        raise ValueError(f"{op}: x must have {rank + 2} axes, (N, C, *S), but got shape {x.shape}")
    kernel = check.sizes(op, "kernel_size", kernel_size, rank, least=1)
    window = Window.make(op, rank, kernel if stride is None else stride, padding)
    if any(2 * before > k for (before, _), k in zip(window.padding, kernel, strict=True)):
        given = tuple(before for before, _ in window.padding)
        raise ValueError(f"{op}: padding must be at most half of the kernel {kernel}, but got {given}")
    check_fit(op, x, kernel, window)
    check_floats(op, x=x)
    return kernel, window
