"""Pooling over windows of the spatial axes: (N, C, *S) -> (N, C, *P), or the same without N."""

from __future__ import annotations

import math

from needle import check, kernels
from needle.autograd import TensorOp
from needle.backend import cpu
from needle.kernels import Window
from needle.lazy import Spec
from needle.ops.arithmetic import cast, divide, divide_scalar
from needle.ops.conv import check_fit, check_floats
from needle.ops.operand import tensor
from needle.ops.shape import with_batch


class MaxPool(TensorOp):
    """The largest element of each window: (N, C, *S) -> (N, C, *P); of equal ones the first takes the gradient."""

    reads_output = True

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, x):
        return kernels.max_windows(x, self.kernel, self.window)

    def infer(self, x):
        return Spec((*x.shape[:2], *self.window.output(x.shape[2:], self.kernel)), x.dtype)

    def gradient(self, out_grad, node):
        return ScatterToMax(self.kernel, self.window)(out_grad, node.inputs[0].detach(), node.detach())


class LocateMax(TensorOp):
    """The row-major index in *S of each window's largest element, the first of equal ones; a constant for the graph."""

    differentiable = False

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, x, best):
        return kernels.locate_max(x, best, self.kernel, self.window)

    def infer(self, x, best):
        return Spec(best.shape, cpu().xp.dtype("int64"))


class ScatterToMax(TensorOp):
    """Each y added at the first largest element of its window in x: (N, C, *P) -> (N, C, *S)."""

    reads_inputs = slice(1, None)

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, y, x, best):
        return kernels.scatter_to_max(y, x, best, self.kernel, self.window)

    def infer(self, y, x, best):
        return Spec(x.shape, y.dtype)

    def gradient(self, out_grad, node):
        return GatherAtMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class GatherAtMax(TensorOp):
    """The elements of g where x has the first largest element of each window: (N, C, *S) -> (N, C, *P)."""

    reads_inputs = slice(1, None)

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, g, x, best):
        return kernels.gather_at_max(g, x, best, self.kernel, self.window)

    def infer(self, g, x, best):
        return Spec(best.shape, g.dtype)

    def gradient(self, out_grad, node):
        return ScatterToMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class SumPool(TensorOp):
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""

    reads_inputs = False

    def __init__(self, kernel, window):
        self.kernel, self.window = kernel, window

    def compute(self, x):
        return kernels.sum_windows(x, self.kernel, self.window)

    def infer(self, x):
        return Spec((*x.shape[:2], *self.window.output(x.shape[2:], self.kernel)), x.dtype)

    def gradient(self, out_grad, node):
        return SpreadPool(self.kernel, self.window, node.inputs[0].shape[2:])(out_grad)


class SpreadPool(TensorOp):
    """The transpose of SumPool: each y added to every element of its window: (N, C, *P) -> (N, C, *S)."""

    reads_inputs = False

    def __init__(self, kernel, window, size):
        self.kernel, self.window, self.size = kernel, window, size

    def compute(self, y):
        return kernels.spread_windows(y, self.kernel, self.window, self.size)

    def infer(self, y):
        return Spec((*y.shape[:2], *self.size), y.dtype)

    def gradient(self, out_grad, node):
        return SumPool(self.kernel, self.window)(out_grad)


# ---- functions -------------------------------------------------------------------------------------------------------


def max_pool(op, x, rank, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest element of each window over `rank` axes, with its place if asked; see `functional.max_pool2d`."""
    check.instance(op, "return_indices", return_indices, bool)
    x, unbatched = batched(op, x, rank)
    kernel, window = _window(op, x, rank, kernel_size, stride, padding, dilation)
    if check.instance(op, "ceil_mode", ceil_mode, bool):
        window = window.with_ceil_mode(x.shape[2:], kernel)
    check_fit(op, x, kernel, window)
    best = MaxPool(kernel, window)(x)
    if return_indices:
        return unbatched(best), unbatched(LocateMax(kernel, window)(x, best))
    return unbatched(best)


def avg_pool(
    op, x, rank, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """The mean of each window over `rank` axes; see `functional.avg_pool2d`."""
    check.instance(op, "count_include_pad", count_include_pad, bool)
    x, unbatched = batched(op, x, rank)
    kernel, window = _window(op, x, rank, kernel_size, stride, padding)
    sides = zip(x.shape[2:], window.padding, strict=True)
    counted = [(0, n + sum(pair)) if count_include_pad else (pair[0], pair[0] + n) for n, pair in sides]
    if check.instance(op, "ceil_mode", ceil_mode, bool):
        window = window.with_ceil_mode(x.shape[2:], kernel)
    check_fit(op, x, kernel, window)
    total = SumPool(kernel, window)(cast(x, "float32") if x.dtype == "float16" else x)
    if divisor_override is not None:
        if not check.integer(op, "divisor_override", divisor_override):
            raise ValueError(f"{op}: divisor_override must not be zero, but got {divisor_override}")
        return unbatched(cast(divide_scalar(total, divisor_override), x.dtype))
    windows = list(zip(kernel, window.stride, total.shape[2:], counted, strict=True))
    counts = [[min(i * s + k, end) - max(i * s, start) for i in range(p)] for k, s, p, (start, end) in windows]
    if all(len(set(axis)) == 1 for axis in counts):
        mean = divide_scalar(total, math.prod(axis[0] for axis in counts))
    else:
        mean = divide(total, x.make_const(_counts(x.device.xp, windows).astype(total.dtype)))
    return unbatched(cast(mean, x.dtype))


def _counts(xp, windows):
    """How many counted elements each window has, the product of those along each axis: (*P), a raw array."""
    counts = xp.ones((), "int64")
    for k, s, p, (start, end) in windows:
        first = xp.arange(p) * s
        counts = counts[..., None] * (xp.minimum(first + k, end) - xp.maximum(first, start))
    return counts


def batched(op, x, rank):
    """x as (N, C, *S) of floats, and the function that takes N = 1 off again where x came without a batch axis."""
    x = tensor(op, x)
    if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape[-rank - 1 :]:
        raise ValueError(
            f"{op}: x must have {rank + 2} axes, (N, C, *S), or {rank + 1}, (C, *S), of which only N may be 0, "
            f"but got shape {x.shape}"
        )
    check_floats(op, x=x)
    return with_batch(x, rank)


def _window(op, x, rank, kernel_size, stride, padding, dilation=1):
    """The kernel and the window of a pooling; the stride is the kernel size by default."""
    kernel = check.sizes(op, "kernel_size", kernel_size, rank, least=1)
    padding = check.sizes(op, "padding", padding, rank)
    if any(2 * before > k for before, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{op}: padding must be at most half of the kernel {kernel}, but got {padding}")
    return kernel, Window.make(op, rank, kernel if stride is None else stride, padding, dilation)
