"""Elementwise work on large arrays, shared by threads along the outermost axis in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from needle import tuning
from needle.backend import device_of, xp
from needle.kernels.layout import Array

__all__ = ["elementwise", "in_memory_order"]


def elementwise(work: Callable[..., Array], x: Array, *others: Array, scratch: int = 0) -> Array:
    """work(x, *others), a ufunc of operands that broadcast, with an argument `out`; threads share large results.

    Results with the shape, dtype and memory order of x are computed in chunks of its outermost axis. Callers with
    results below `tuning.PARALLEL_ELEMENTWISE_BYTES` should call `work` directly. Work of many steps tells how many
    arrays like x it needs meanwhile, `scratch`: then one thread computes in chunks, too, and they stay in cache.
    """
    device = device_of(x)
    at_once = x.nbytes * scratch < tuning.BLOCK_BYTES if scratch else device.worker_count() == 1
    if at_once or not _result_is_like(x, others):
        return work(x, *others)
    axis = max(range(x.ndim), key=lambda i: (x.shape[i] > 1, x.strides[i])) - x.ndim  # outermost in memory
    out, length = device.xp.empty_like(x), x.shape[axis]

    def compute(chunk: slice) -> None:
        work(*(chunk_of(array, axis, chunk) for array in (x, *others)), out=chunk_of(out, axis, chunk))

    chunks = device.chunks(length, max(1, scratch) * x.nbytes // length, True)
    device.parallel_for(compute, chunks, uses_blas=False)
    return out


def _result_is_like(x: Array, others: tuple[Array, ...]) -> bool:
    """Whether elementwise work on the operands returns an array with the shape, dtype and memory order of x."""
    return all(
        x.dtype == other.dtype
        and (
            x.strides == other.strides
            if x.shape == other.shape
            else xp(x).broadcast_shapes(x.shape, other.shape) == x.shape
        )
        for other in others
    )


def chunk_of(array: Array, axis: int, chunk: slice) -> Array:
    """A chunk along an axis counted from the end; all of an operand that broadcasts along it."""
    if -axis > array.ndim or array.shape[axis] == 1:
        return array
    return array[(..., chunk, *(slice(None),) * (-axis - 1))]


def in_memory_order(work: Callable[..., Array], arrays: Sequence[Array]) -> Array:
    """work(*arrays), elementwise, in the memory order of the first large array that is not row-major.

    For ufuncs that return row-major results: the axes of all operands are reordered, which takes no copy.
    """
    ndim = max(array.ndim for array in arrays)
    size = max(array.size for array in arrays)
    for array in arrays:
        if array.size == size and array.ndim == ndim:
            order = _memory_order(array.shape, array.strides)
            if not order:
                continue
            forward, back = order
            lead = [(1,) * (ndim - array.ndim) + array.shape for array in arrays]
            views = (array.reshape(shape).transpose(forward) for array, shape in zip(arrays, lead, strict=True))
            return work(*views).transpose(back)
    return work(*arrays)


@lru_cache(maxsize=4096)
def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], list[int]] | None:
    """The axes from the outermost in memory to the innermost, and the way back.

    None for row-major arrays, and if elements are repeated, so that there is no order.
    """
    axes = [axis for axis, n in enumerate(shape) if n > 1]
    if not all(strides[axis] for axis in axes):
        return None
    order = sorted(axes, key=lambda axis: -abs(strides[axis]))
    if order == axes:
        return None
    order = [axis for axis, n in enumerate(shape) if n <= 1] + order
    return order, [order.index(axis) for axis in range(len(order))]
