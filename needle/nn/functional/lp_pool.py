"""Power-average pooling over one, two and three axes, under torch's names. x may lack the batch axis."""

from __future__ import annotations

import math

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.nn.functional.conv import Sizes
from needle.ops.arithmetic import NEGATE, MulScalar, PowerScalar, as_dtype
from needle.ops.elementwise import Abs
from needle.ops.logic import EQUAL, WHERE
from needle.ops.operand import check_fit, pool_window, scalar_like, unbatched
from needle.ops.pool import avg_pool, max_pool, pool_operand

__all__ = ["lp_pool1d", "lp_pool2d", "lp_pool3d"]


def lp_pool1d(
    x: TensorLike, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window, p = `norm_type`: (N, C, L) -> (N, C, P). See `lp_pool2d`."""
    return _lp_pool("lp_pool1d", x, 1, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    x: TensorLike, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """sum(x ** p) ** (1 / p) over each window, p = `norm_type`: (N, C, H, W) -> (N, C, P, P).

    Powers are those of x, not of |x|, as in torch: an odd p may give NaN. p may be infinite, for the largest magnitude,
    or -infinite, for the smallest. Options are one integer or a pair. The stride is the kernel size by default. P is
    computed as in `max_pool2d`; sums over the smaller last windows of `ceil_mode` are scaled to the whole kernel. The
    derivative where the sum is 0 is 0. float16 is computed in float32.

    Raises `ValueError` if p is 0 or shapes do not fit, `TypeError` unless the dtype of x is floating.

    Gulcehre, Cho, Pascanu and Bengio, "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks" (2014),
    equation 1, but with a sum in place of the mean.
    """
    return _lp_pool("lp_pool2d", x, 2, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    x: TensorLike, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window, p = `norm_type`: (N, C, D, H, W) -> (N, C, P, P, P). See `lp_pool2d`."""
    return _lp_pool("lp_pool3d", x, 3, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    op: str, x: TensorLike, rank: int, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool
) -> Tensor:
    x, had_batch = pool_operand(op, x, rank)
    p = check.nonzero(op, "norm_type", norm_type)
    kernel, window = pool_window(op, rank, kernel_size, stride)
    if check.instance(op, "ceil_mode", ceil_mode, bool):
        check_fit(op, x.shape, kernel, window.with_ceil_mode(x.shape[2:], kernel))
    else:
        check_fit(op, x.shape, kernel, window)
    wide = as_dtype(x, compute_dtype(x.dtype))
    if math.isinf(p):
        size = Abs()(wide) if p > 0 else NEGATE(Abs()(wide))
        best = max_pool(op, size, rank, kernel_size, stride, ceil_mode=ceil_mode)
        assert isinstance(best, Tensor)
        return unbatched(as_dtype(best if p > 0 else NEGATE(best), x.dtype), had_batch)
    mean = avg_pool(op, PowerScalar(p)(wide), rank, kernel_size, stride, ceil_mode=ceil_mode)
    total = MulScalar(math.prod(kernel))(mean)
    return unbatched(as_dtype(root_of_sum(total, p), x.dtype), had_batch)


def root_of_sum(total: Tensor, p: float) -> Tensor:
    """total ** (1 / p), with derivative 0 where the total is 0."""
    is_zero, zero = EQUAL(total, scalar_like(0, total)), scalar_like(0, total)
    root = PowerScalar(1 / p)(WHERE(is_zero, scalar_like(1, total), total))
    return WHERE(is_zero, zero, root)
