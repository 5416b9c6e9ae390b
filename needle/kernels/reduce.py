"""Sums by BLAS: a product with ones, which is faster than NumPy's sums."""

from __future__ import annotations

import math
from functools import lru_cache

from needle import tuning
from needle.backend import device_of, overridable, xp
from needle.kernels.layout import Array, is_compact

__all__ = ["row_products", "row_sums", "sums"]


def row_sums(rows: Array) -> Array:
    """(R, M) -> (R, 1): the sum of each row, exact to a few units in the last place."""
    return rows @ xp(rows).ones((rows.shape[1], 1), rows.dtype)


def row_products(a: Array, b: Array) -> Array:
    """(R, M), (R, M) -> (R, 1): the dot product of each pair of rows, without a * b in memory."""
    return (a[:, None, :] @ b[:, :, None])[:, :, 0]


@overridable
def sums(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over `axes` (not negative), which stay with size 1; by BLAS if they are adjacent in memory.

    BLAS adds in another order than NumPy's pairwise sum, which is more exact on long rows, so those are left to NumPy.
    """
    if x.dtype.kind != "f":
        return x.sum(axis=axes, keepdims=True, dtype="int64")
    if x.size < tuning.BLAS_SUM_MIN_SIZE or x.dtype.itemsize < 4:
        return x.sum(axis=axes, keepdims=True)
    grouping = _group_axes(x.shape, x.strides, x.itemsize, axes)
    if grouping is None or grouping[1][1] > tuning.BLAS_SUM_MAX_TERMS:
        return x.sum(axis=axes, keepdims=True)
    order, (before, length, after) = grouping
    device = device_of(x)
    terms = x.transpose(order).reshape(before, length, after)
    ones = device.xp.ones((1, length), x.dtype)
    total = device.xp.empty((before, 1, after), x.dtype)

    def add(chunk: slice) -> None:
        if after == 1:
            device.xp.matmul(terms[chunk, :, 0], ones[0], out=total[chunk, 0, 0])  # (A, L) @ (L,) -> (A,)
        else:
            device.xp.matmul(ones, terms[chunk], out=total[chunk])  # (1, L) @ (A, L, B) -> (A, 1, B)

    device.parallel_for(add, device.chunks(before, x.nbytes // before))
    total = total.reshape([1 if i in axes else x.shape[i] for i in order])
    return total.transpose([order.index(i) for i in range(x.ndim)])


@lru_cache(maxsize=4096)
def _group_axes(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, axes: tuple[int, ...]
) -> tuple[list[int], tuple[int, int, int]] | None:
    """The axes in memory order, and sizes (A, L, B) with the summed `axes` as L; None if they are not adjacent."""
    order = sorted(range(len(shape)), key=lambda i: (strides[i], shape[i] == 1), reverse=True)
    summed = [i for i in order if i in axes]
    first = order.index(summed[0]) if summed else 0
    last = first + len(summed)
    if not summed or order[first:last] != summed or not is_compact(order, shape, strides, itemsize):
        return None
    sizes = [shape[i] for i in order]
    return order, (math.prod(sizes[:first]), math.prod(sizes[first:last]), math.prod(sizes[last:]))
