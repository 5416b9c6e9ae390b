"""Pooling over one, two or three axes, under torch's names. x may lack the batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias, overload

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike, compute_dtype
from needle.kernels import at
from needle.nn.functional.conv import Sizes
from needle.nn.functional.linear import matmul_along
from needle.ops import getitem, greater_equal, less, maximum, reshape
from needle.ops.arithmetic import as_dtype
from needle.ops.operand import pool_window, unbatched
from needle.ops.pool import Pooled, average, avg_pool, largest, max_pool, pool_operand
from needle.ops.reduce import Mean

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]

OutputSizes: TypeAlias = int | Sequence[int | None]

# ---- windows of one size ---------------------------------------------------------------------------------------------


# fmt: off

@overload
def max_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...,
) -> Tensor: ...
@overload
def max_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: bool = ...,
) -> Pooled: ...
def max_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:
    """The largest element of each window: (N, C, L) -> (N, C, P). Options and errors as in `max_pool2d`."""
    return max_pool("max_pool1d", x, 1, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@overload
def max_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...,
) -> Tensor: ...
@overload
def max_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: bool = ...,
) -> Pooled: ...
def max_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:
    """The largest element of each window: (N, C, H, W) -> (N, C, P, P).

    Options are one integer or a pair. The stride is the kernel size by default. P is computed as in `conv2d`, with at
    most half of the kernel as padding; `ceil_mode` rounds it up, for windows that start in the input or in the padding
    before it. NaN counts as the largest element. Of equal elements the first in row-major order receives the gradient.

    With `return_indices`, a pair: the elements, and their row-major positions in H·W, of int64.

    Raises `ValueError` if padding exceeds half of the kernel or shapes do not fit, `TypeError` for bools.

    >>> import needle as ndl
    >>> max_pool2d(ndl.Tensor([[[[1.0, 2.0], [4.0, 3.0]]]]), 2, return_indices=True)[1].item()
    2
    """
    return max_pool("max_pool2d", x, 2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@overload
def max_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...,
) -> Tensor: ...
@overload
def max_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = ..., padding: Sizes = ..., dilation: Sizes = ...,
    ceil_mode: bool = ..., return_indices: bool = ...,
) -> Pooled: ...
def max_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:
    """The largest element of each window: (N, C, D, H, W) -> (N, C, P, P, P). Options and errors as in `max_pool2d`."""
    return max_pool("max_pool3d", x, 3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# fmt: on


def avg_pool1d(
    x: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: (N, C, L) -> (N, C, P). Options and errors as in `avg_pool2d`."""
    return avg_pool("avg_pool1d", x, 1, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: (N, C, H, W) -> (N, C, P, P).

    Options are one integer or a pair. The stride is the kernel size by default. Padding counts as zeros, or not at all
    with `count_include_pad=False`. Elements that the last window of `ceil_mode` (see `max_pool2d`) has beyond the
    padding never count. `divisor_override` divides all sums instead of the counts. float16 accumulates in float32;
    means of int64 are cut off towards zero.

    Raises `ValueError` if padding exceeds half of the kernel or shapes do not fit, `TypeError` unless the dtype of x is
    floating or int64.
    """
    return avg_pool("avg_pool2d", x, 2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    x: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: (N, C, D, H, W) -> (N, C, P, P, P). Options and errors as in `avg_pool2d`."""
    return avg_pool("avg_pool3d", x, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# ---- outputs of one size ---------------------------------------------------------------------------------------------


def adaptive_avg_pool1d(x: TensorLike, output_size: OutputSizes) -> Tensor:
    """The means of P windows that cover the input: (N, C, L) -> (N, C, P). See `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", x, 1, output_size)


def adaptive_avg_pool2d(x: TensorLike, output_size: OutputSizes) -> Tensor:
    """The means of P·P windows that cover the input: (N, C, H, W) -> (N, C, P, P).

    Window i along H runs from floor(i·H / P) to ceil((i + 1)·H / P). `output_size` is one P or a pair; None in a pair
    keeps the size of the input. float16 accumulates in float32.

    Raises `ValueError` if shapes do not fit, `TypeError` unless the dtype of x is floating.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", x, 2, output_size)


def adaptive_avg_pool3d(x: TensorLike, output_size: OutputSizes) -> Tensor:
    """The means of P·P·P windows that cover the input: (N, C, D, H, W) -> (N, C, P, P, P).

    See `adaptive_avg_pool2d`.
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", x, 3, output_size)


@overload
def adaptive_max_pool1d(x: TensorLike, output_size: OutputSizes, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool1d(
    x: TensorLike, output_size: OutputSizes, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool1d(x: TensorLike, output_size: OutputSizes, return_indices: bool) -> Pooled: ...
def adaptive_max_pool1d(x: TensorLike, output_size: OutputSizes, return_indices: bool = False) -> Pooled:
    """The largest elements of P windows that cover the input: (N, C, L) -> (N, C, P). See `adaptive_max_pool2d`."""
    return _adaptive_max_pool("adaptive_max_pool1d", x, 1, output_size, return_indices)


@overload
def adaptive_max_pool2d(x: TensorLike, output_size: OutputSizes, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool2d(
    x: TensorLike, output_size: OutputSizes, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool2d(x: TensorLike, output_size: OutputSizes, return_indices: bool) -> Pooled: ...
def adaptive_max_pool2d(x: TensorLike, output_size: OutputSizes, return_indices: bool = False) -> Pooled:
    """The largest elements of P·P windows that cover the input: (N, C, H, W) -> (N, C, P, P).

    Windows as in `adaptive_avg_pool2d`; ties, NaN, indices and errors as in `max_pool2d`.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", x, 2, output_size, return_indices)


@overload
def adaptive_max_pool3d(x: TensorLike, output_size: OutputSizes, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool3d(
    x: TensorLike, output_size: OutputSizes, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool3d(x: TensorLike, output_size: OutputSizes, return_indices: bool) -> Pooled: ...
def adaptive_max_pool3d(x: TensorLike, output_size: OutputSizes, return_indices: bool = False) -> Pooled:
    """The largest elements of P·P·P windows that cover the input: (N, C, D, H, W) -> (N, C, P, P, P).

    See `adaptive_max_pool2d`.
    """
    return _adaptive_max_pool("adaptive_max_pool3d", x, 3, output_size, return_indices)


def _adaptive_avg_pool(op: str, x: TensorLike, rank: int, output_size: OutputSizes) -> Tensor:
    """Plain pooling if all windows have one size, else a matmul with a matrix of averages along each axis."""
    x, had_batch = pool_operand(op, x, rank)
    size, output = x.shape[2:], _output_size(op, x, rank, output_size)
    if set(output) == {1}:  # the gradient of the mean is a view, not sums of windows
        x = Mean(tuple(range(2, x.ndim)), keepdims=True)(x)
    elif _is_uniform(size, output):
        x = average(x, *pool_window(op, rank, _quotients(size, output)))
    else:
        dtype = x.dtype
        x = as_dtype(x, compute_dtype(dtype))  # float16 is rounded once, after the last axis
        for axis, (n, p) in enumerate(zip(size, output, strict=True), 2):
            if n != p:
                x = matmul_along(x, _averages(n, p, x.device, x.dtype), axis)
        x = as_dtype(x, dtype)
    return unbatched(x, had_batch)


@lru_cache(maxsize=16)
def _averages(n: int, p: int, device: Device, dtype: DTypeLike) -> Tensor:
    """The matrix (n, p) whose columns average the windows of n elements."""
    start, end = _edges(n, p, device)
    position = reshape(init.arange(n, device=device), (n, 1))
    is_covered = greater_equal(position, start) * less(position, end)
    return (is_covered / (end - start).astype("float64")).astype(dtype)


def _adaptive_max_pool(op: str, x: TensorLike, rank: int, output_size: OutputSizes, return_indices: bool) -> Pooled:
    """Plain pooling if all windows have one size, else pooling of windows gathered side by side."""
    check.instance(op, "return_indices", return_indices, bool)
    x, had_batch = pool_operand(op, x, rank)
    size, output = x.shape[2:], _output_size(op, x, rank, output_size)
    if _is_uniform(size, output):
        best, place = largest(x, *pool_window(op, rank, _quotients(size, output)), return_indices)
    else:
        windows = [_side_by_side(n, p, x.device) for n, p in zip(size, output, strict=True)]
        for axis, (index, _) in enumerate(windows, 2):
            x = getitem(x, at(axis, index))
        best, place = largest(x, *pool_window(op, rank, tuple(k for _, k in windows)), return_indices)
        if place is not None:
            position = init.zeros(device=x.device, dtype="int64")  # of each gathered element, row-major in *S
            for n, (index, _) in zip(size, windows, strict=True):
                position = reshape(position, (*position.shape, 1)) * n + index
            place = getitem(reshape(position, (-1,)), place)
    best = unbatched(best, had_batch)
    return best if place is None else (best, unbatched(place, had_batch))


@lru_cache(maxsize=32)
def _side_by_side(n: int, p: int, device: Device) -> tuple[Tensor, int]:
    """An index (p·k,) that lays p adaptive windows of n elements side by side, and k, the size of the longest.

    Shorter windows repeat their first element, which changes neither the first nor the last of equal elements.
    """
    k = max(_end(n, p, i) - _start(n, p, i) for i in range(p))
    start, end = (reshape(edge, (p, 1)) for edge in _edges(n, p, device))
    return reshape(maximum(start, end - k + init.arange(k, device=device)), (-1,)), k


def _output_size(op: str, x: Tensor, rank: int, output_size: OutputSizes) -> tuple[int, ...]:
    """`output_size` for each axis; None in a sequence is the size of the input."""
    if isinstance(output_size, Sequence) and len(output_size) == rank > 1:
        output_size = tuple(n if p is None else p for n, p in zip(x.shape[2:], output_size, strict=True))
    return check.sizes(op, "output_size", output_size, rank, least=1)


def _edges(n: int, p: int, device: Device) -> tuple[Tensor, Tensor]:
    """The starts and the ends of p windows that cover n elements, as int64 (p,); made on the device, not sent there."""
    window = init.arange(p, device=device, dtype="float64")  # its quotients round down exactly
    start, end = window * n / p, (window * n + (n + p - 1)) / p
    return start.astype("int64"), end.astype("int64")


def _start(n: int, p: int, i: int) -> int:
    """The start of window i of p that cover n elements: floor(i·n / p)."""
    return i * n // p


def _end(n: int, p: int, i: int) -> int:
    """The end of window i of p that cover n elements: ceil((i + 1)·n / p)."""
    return -(-(i + 1) * n // p)


def _is_uniform(size: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether adaptive windows are all of one size and do not overlap."""
    return all(n % p == 0 for n, p in zip(size, output, strict=True))


def _quotients(size: tuple[int, ...], output: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // p for n, p in zip(size, output, strict=True))
