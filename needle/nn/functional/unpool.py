"""The partial inverse of max pooling over one, two and three axes, under torch's names. x may lack the batch axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.kernels import Size
from needle.nn.functional.conv import Sizes
from needle.ops.arithmetic import ADD, MulScalar
from needle.ops.operand import as_indices, check_range, tensor, unbatched
from needle.ops.pool import MaxUnpool, pool_operand
from needle.ops.shape import Reshape

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]


def max_unpool1d(
    x: TensorLike,
    indices: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back to their places among zeros: (N, C, P) -> (N, C, L). See `max_unpool2d`."""
    return _max_unpool("max_unpool1d", x, indices, 1, kernel_size, stride, padding, output_size)


def max_unpool2d(
    x: TensorLike,
    indices: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back to their places among zeros: (N, C, P, P) -> (N, C, H, W).

    `indices`, of the shape of x, are those of `max_pool2d`: row-major positions in H·W, integers of any dtype. Of
    several with one place the last stays, on a GPU any; all take the gradient.

    H = (P - 1) · stride - 2 · padding + kernel, the smallest input of the pooling. `output_size`, with or without
    the sizes of N and C, sets H and W to others, which differ from these by less than the stride.

    Raises `ValueError` if shapes do not fit together or, on the CPU, if an index lies outside; `TypeError` unless the
    dtype of x is floating.

    Zeiler, Taylor and Fergus, "Adaptive Deconvolutional Networks for Mid and High Level Feature Learning" (2011),
    section 2.1.

    >>> import needle as ndl
    >>> max_unpool2d(ndl.Tensor([[[4.0]]]), ndl.Tensor([[[2]]]), 2).numpy().tolist()
    [[[0.0, 0.0], [4.0, 0.0]]]
    """
    return _max_unpool("max_unpool2d", x, indices, 2, kernel_size, stride, padding, output_size)


def max_unpool3d(
    x: TensorLike,
    indices: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back to their places among zeros: (N, C, P, P, P) -> (N, C, D, H, W). See `max_unpool2d`."""
    return _max_unpool("max_unpool3d", x, indices, 3, kernel_size, stride, padding, output_size)


def _max_unpool(
    op: str,
    x: TensorLike,
    indices: TensorLike,
    rank: int,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
) -> Tensor:
    x, indices = tensor(op, x), tensor(op, indices)
    check.same(op, "shape", x.shape, indices.shape, ("x", "indices"))
    x, had_batch = pool_operand(op, x, rank)
    size = _output_size(op, x.shape[2:], *unpool_window(op, rank, kernel_size, stride, padding), output_size)
    area = math.prod(size)
    position = as_indices(op, "indices", indices)
    check_range(op, "indices", position, 0, area - 1)
    rows = x.shape[0] * x.shape[1]
    start = MulScalar(area)(init.arange(rows, device=x.device))
    places = ADD(Reshape((rows, math.prod(x.shape[2:])))(position), Reshape((rows, 1))(start))
    y = MaxUnpool((rows * area,))(Reshape((x.size,))(x), Reshape((x.size,))(places))
    return unbatched(Reshape((*x.shape[:2], *size))(y), had_batch)


def unpool_window(
    op: str, rank: int, kernel_size: Sizes, stride: Sizes | None, padding: Sizes
) -> tuple[Size, Size, Size]:
    """Kernel, stride (the kernel by default) and padding of each axis."""
    kernel = check.sizes(op, "kernel_size", kernel_size, rank, least=1)
    steps = kernel if stride is None else check.sizes(op, "stride", stride, rank, least=1)
    return kernel, steps, check.sizes(op, "padding", padding, rank)


def _output_size(
    op: str, size: Size, kernel: Size, stride: Size, padding: Size, output_size: Sequence[int] | None
) -> Size:
    """The sizes of the result: those that the pooling needs at least, or `output_size`, which differs by a stride."""
    options = zip(size, kernel, stride, padding, strict=True)
    least = tuple((p - 1) * s - 2 * before + k for p, k, s, before in options)
    if output_size is None:
        if min(least) < 1:
            raise ValueError(f"{op}: sizes of the output must be at least 1, but x and its window give {least}")
        return least
    sizes = check.instance(op, "output_size", output_size, Sequence)
    result = check.sizes(op, "output_size", tuple(sizes[2:] if len(sizes) == len(size) + 2 else sizes), len(size))
    for n, m, s in zip(result, least, stride, strict=True):
        if not max(0, m - s) < n < m + s:
            raise ValueError(f"{op}: output_size must differ by less than the stride from {least}, but got {result}")
    return result
