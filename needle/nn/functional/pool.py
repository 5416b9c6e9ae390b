"""Pooling over one, two or three axes, under torch's names. Every function takes x without its axis N as well."""

from __future__ import annotations

from collections.abc import Sequence

from needle import check
from needle.ops import getitem, mean
from needle.ops.linalg import matmul_along
from needle.ops.pool import avg_pool, batched, max_pool

# ---- windows of one size ---------------------------------------------------------------------------------------------


def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest element of each window: (N, C, L) -> (N, C, P); see `max_pool2d`."""
    return max_pool("max_pool1d", x, 1, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest element of each window: (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default.

    Of equal elements the first counts, in row-major order; NaN counts as the largest. P is that of `conv2d`;
    `ceil_mode` rounds it up, for windows that start in the input or in the padding before it. With `return_indices` a
    pair: the elements, and where they lie in H·W, of int64.

    Raises ValueError where padding exceeds half of the kernel or shapes do not fit, TypeError where x is not of floats.
    """
    return max_pool("max_pool2d", x, 2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest element of each window: (N, C, D, H, W) -> (N, C, P, P, P); see `max_pool2d`."""
    return max_pool("max_pool3d", x, 3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window: (N, C, L) -> (N, C, P); see `avg_pool2d`."""
    return avg_pool("avg_pool1d", x, 1, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):  # fmt: skip
    """The mean of each window: (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default.

    The padding counts as zeros, or with `count_include_pad=False` not at all; what a last window of `ceil_mode` (see
    `max_pool2d`) has beyond it never counts. Sums are divided by `divisor_override` where one is given.

    Raises ValueError where padding exceeds half of the kernel or shapes do not fit, TypeError where x is not of floats.
    """
    return avg_pool("avg_pool2d", x, 2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):  # fmt: skip
    """The mean of each window: (N, C, D, H, W) -> (N, C, P, P, P); see `avg_pool2d`."""
    return avg_pool("avg_pool3d", x, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# ---- outputs of one size ---------------------------------------------------------------------------------------------


def adaptive_avg_pool1d(x, output_size):
    """The means of P windows that cover the input: (N, C, L) -> (N, C, P); see `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", x, 1, output_size)


def adaptive_avg_pool2d(x, output_size):
    """The means of P·P windows that cover the input: (N, C, H, W) -> (N, C, P, P).

    Window i along H runs from floor(i·H / P) to ceil((i + 1)·H / P). `output_size` is one P or a pair; None in it
    keeps the input's size.

    Raises ValueError where shapes do not fit, TypeError where x is not of floats.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", x, 2, output_size)


def adaptive_avg_pool3d(x, output_size):
    """The means of P·P·P windows that cover the input: (N, C, D, H, W) -> (N, C, P, P, P); see `adaptive_avg_pool2d`"""
    return _adaptive_avg_pool("adaptive_avg_pool3d", x, 3, output_size)


def adaptive_max_pool1d(x, output_size, return_indices=False):
    """The largest elements of P windows that cover the input: (N, C, L) -> (N, C, P); see `adaptive_max_pool2d`."""
    return _adaptive_max_pool("adaptive_max_pool1d", x, 1, output_size, return_indices)


def adaptive_max_pool2d(x, output_size, return_indices=False):
    """The largest elements of P·P windows that cover the input: (N, C, H, W) -> (N, C, P, P).

    Windows as in `adaptive_avg_pool2d`; ties, NaN, indices and errors as in `max_pool2d`.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", x, 2, output_size, return_indices)


def adaptive_max_pool3d(x, output_size, return_indices=False):
    """The largest elements of windows that cover the input: (N, C, D, H, W) -> (N, C, P, P, P).

    Windows as in `adaptive_avg_pool2d`; ties, NaN, indices and errors as in `max_pool2d`.
    """
    return _adaptive_max_pool("adaptive_max_pool3d", x, 3, output_size, return_indices)


def _adaptive_avg_pool(op, x, rank, output_size):
    """Plain pooling where the windows are all alike, else a product with a matrix of means along each axis."""
    x, unbatched = batched(op, x, rank)
    size, output = x.shape[2:], _output_size(op, x, rank, output_size)
    if set(output) == {1}:
        return unbatched(mean(x, tuple(range(2, x.ndim)), keepdims=True))  # its gradient is a view, not sums of windows
    if _alike(size, output):
        return unbatched(avg_pool(op, x, rank, _quotients(size, output)))
    for axis, (n, p) in enumerate(zip(size, output, strict=True), 2):
        if n != p:
            start, end = _edges(n, p, x.device.xp.arange(p))
            place = x.device.xp.arange(n)[:, None]
            x = matmul_along(x, ((place >= start) & (place < end)) / (end - start), axis)
    return unbatched(x)


def _adaptive_max_pool(op, x, rank, output_size, return_indices):
    """Plain pooling where the windows are all alike, else of windows laid side by side."""
    check.instance(op, "return_indices", return_indices, bool)
    x, unbatched = batched(op, x, rank)
    size, output = x.shape[2:], _output_size(op, x, rank, output_size)
    if _alike(size, output):
        result = max_pool(op, x, rank, _quotients(size, output), return_indices=return_indices)
        return tuple(map(unbatched, result)) if return_indices else unbatched(result)
    kernel, plane = (), x.device.xp.zeros((), "int64")
    for axis, (n, p) in enumerate(zip(size, output, strict=True), 2):
        k = max(end - start for start, end in (_edges(n, p, i) for i in range(p)))
        start, end = (edge[:, None] for edge in _edges(n, p, x.device.xp.arange(p)))
        # Shorter windows take their first element several times: that changes neither the first nor the last of equals.
        place = x.device.xp.maximum(start, end - k + x.device.xp.arange(k)).reshape(-1)
        x = getitem(x, (slice(None),) * axis + (x.make_const(place),))
        plane = plane[..., None] * n + place
        kernel += (k,)
    if not return_indices:
        return unbatched(max_pool(op, x, rank, kernel))
    best, index = max_pool(op, x, rank, kernel, return_indices=True)
    return unbatched(best), unbatched(x.make_const(plane.reshape(-1)[index.array]))


def _output_size(op, x, rank, output_size):
    """The sizes asked for; None among several is the size of the input."""
    if isinstance(output_size, Sequence) and len(output_size) == rank > 1:
        output_size = tuple(n if p is None else p for n, p in zip(x.shape[2:], output_size, strict=True))
    return check.sizes(op, "output_size", output_size, rank, least=1)


def _edges(n, p, i):
    """Where window i of p that cover n elements starts and ends: floor(i·n / p) and ceil((i + 1)·n / p)."""
    return i * n // p, -(-(i + 1) * n // p)


def _alike(size, output):
    """Whether adaptive windows are all of one size and do not overlap."""
    return all(n % p == 0 for n, p in zip(size, output, strict=True))


def _quotients(size, output):
    return tuple(n // p for n, p in zip(size, output, strict=True))
