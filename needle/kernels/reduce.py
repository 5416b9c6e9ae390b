"""Sums and means whose rounding errors grow with the logarithm of the number of terms, by BLAS: products with ones.

NumPy adds pairwise along contiguous rows only. Across them it adds one row after the other, and a float32 total stops
growing at 2²⁴. Here a few terms are added at a time, then their sums, and so on. float16 is summed in float32.

Source: Higham, "The Accuracy of Floating Point Summation" (1993), section 3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from needle import tuning
from needle.backend import Device, compute_dtype, device_of, overridable, xp
from needle.kernels.layout import Array, is_compact

__all__ = ["group_axes", "means", "row_products", "row_sums", "summed_to", "sums"]

WIDER = {"e": "float64", "f": "float64"}  # the dtype in which NumPy sums few elements, by the code of theirs


@overridable
def sums(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over `axes` (not negative), which stay with size 1."""
    if x.dtype.kind != "f":
        return x.sum(axis=axes, keepdims=True, dtype="int64")
    return _wide_sums(x, axes).astype(x.dtype, copy=False)


@overridable
def means(x: Array, axes: tuple[int, ...], dtype: Any = None) -> Array:
    """The mean over `axes` (not negative), which stay with size 1, in `dtype`: by default that of x, or float64."""
    if x.dtype.kind != "f":
        return x.mean(axis=axes, keepdims=True)
    total = _wide_sums(x, axes)
    return (total / (x.size // max(total.size, 1))).astype(dtype or x.dtype, copy=False)


def summed_to(shape: tuple[int, ...], x: Array) -> Array:
    """x summed over the axes that broadcasting from `shape` repeats; x itself if it has that shape."""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    repeated = (i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    return sums(x, (*range(lead), *repeated)).reshape(shape)


def row_sums(rows: Array) -> Array:
    """(R, M) -> (R, 1): the sum of each row; of long rows in float64."""
    device, length = device_of(rows), rows.shape[1]
    if length <= tuning.BLAS_ROW_TERMS:
        return device.matmul(rows, _ones(device, length, rows.dtype)[:, None])
    count, k, _ = _block_sizes(length, 1)
    if k <= tuning.BLAS_ROW_TERMS:  # the usual case, in half of the calls
        blocks = device.matmul(rows.reshape(-1, k), _ones(device, k, rows.dtype))
        return blocks.reshape(-1, count).sum(axis=1, keepdims=True, dtype="float64")
    return _add_up(device, rows[:, :, None], rows.dtype)


def row_products(a: Array, b: Array) -> Array:
    """(R, M), (R, M) -> (R, 1): the dot product of each pair of rows, without a * b in memory; of long rows in float64.

    Dot products of BLAS_ROW_TERMS take a fifth longer than of 1024, with a third of the error.
    """
    (rows, length), multiply = a.shape, device_of(a).matmul
    k = tuning.BLAS_ROW_TERMS
    if length < 4 * k:
        return multiply(a[:, None, :], b[:, :, None])[:, :, 0]
    count = length // k
    whole = count * k
    blocks = multiply(a[:, :whole].reshape(rows, count, 1, k), b[:, :whole].reshape(rows, count, k, 1))
    total = blocks[:, :, 0, 0].sum(axis=1, keepdims=True, dtype="float64")
    return total if whole == length else total + row_products(a[:, whole:], b[:, whole:])


def _wide_sums(x: Array, axes: tuple[int, ...]) -> Array:
    """`sums` of floats, not yet rounded to their dtype."""
    if x.size <= tuning.NUMPY_SUM_MAX_SIZE:
        return x.sum(axis=axes, keepdims=True, dtype=WIDER.get(x.dtype.char))
    if 0 in x.strides and any(step == 0 and n > 1 for n, step in zip(x.shape, x.strides, strict=True)):
        return _repeated_sums(x, axes)
    device, dtype = device_of(x), compute_dtype(x.dtype)
    grouping = group_axes(x.shape, x.strides, x.itemsize, axes)
    if grouping is None:
        x = x.astype(dtype, order="K")  # a copy without gaps
        grouping = group_axes(x.shape, x.strides, x.itemsize, axes)
    assert grouping is not None
    order, inverse, shape, steps = grouping
    total = x.transpose(order)
    for before, length, after in steps:
        total = _sum_middle(device, total.reshape(before, length, after), dtype)
    return total.reshape(shape).transpose(inverse)


def _repeated_sums(x: Array, axes: tuple[int, ...]) -> Array:
    """The sums of an array in which broadcasting repeats elements along some axes: read once, then multiplied."""
    repeated = [i for i, step in enumerate(x.strides) if step == 0]
    total = _wide_sums(x[tuple(slice(1) if i in repeated else slice(None) for i in range(x.ndim))], axes)
    total = total * math.prod(x.shape[i] for i in repeated if i in axes)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return total if total.shape == shape else xp(x).broadcast_to(total, shape).copy()


def _sum_middle(device: Device, terms: Array, dtype: Any) -> Array:
    """(A, L, B) -> (A, 1, B): the sums over the middle axis; threads share A, or L if A is 1."""
    if terms.nbytes < tuning.PARALLEL_SUM_BYTES:
        return device.parallel_sum(lambda chunk: _add_up(device, terms[chunk], dtype), [slice(None)])[:, None]
    before, length, after = terms.shape
    row_bytes = after * terms.itemsize
    if before == 1:
        pieces = device.chunks(length, row_bytes, False)
        partial_sums = device.xp.empty((1, len(pieces), after), "float64")

        def add_piece(i: int) -> None:
            partial_sums[:, i] = _add_up(device, terms[:, pieces[i]], dtype)

        device.parallel_for(add_piece, range(len(pieces)))
        return _add_up(device, partial_sums, "float64")[:, None]
    total = device.xp.empty((before, 1, after), dtype if length < tuning.FLOAT64_SUM_TERMS else "float64")

    def add(chunk: slice) -> None:
        total[chunk, 0] = _add_up(device, terms[chunk], dtype)

    device.parallel_for(add, device.chunks(before, length * row_bytes))
    return total


def _add_up(device: Device, terms: Array, dtype: Any) -> Array:
    """(A, L, B) -> (A, B): the sums over the middle axis, by blocks of few terms in `dtype`, then by blocks of sums.

    Where these sums are few, they are added in float64, which takes no time.
    """
    _, length, after = terms.shape
    few = tuning.NUMPY_SUM_MAX_SIZE if after == 1 or after > tuning.BLAS_COLUMN_TERMS else tuning.BLAS_COLUMNS
    while terms.shape[1] > 1:
        if terms.size <= few:  # NumPy is slow across short rows
            return terms.sum(axis=1, dtype="float64")
        if terms.shape[1] * tuning.FLOAT64_SUM_TERMS <= length:
            dtype = "float64"
        terms = _add_blocks(device, terms, dtype)
    return terms[:, 0]


def _add_blocks(device: Device, terms: Array, dtype: Any) -> Array:
    """(A, L, B) -> (A, L', B): the sums of blocks along the middle axis, then the few terms that fill no block."""
    before, length, after = terms.shape
    count, k, width = _block_sizes(length, after)
    if after == 1 and k <= tuning.BLAS_ROW_TERMS:
        blocks = terms.reshape(before * count, k).astype(dtype, copy=False)
        return device.matmul(blocks, _ones(device, k, dtype)).reshape(before, count, 1)
    adjacent, whole = count * width, count * k * width
    sums = device.xp.empty((before, adjacent + length - whole, after), dtype)
    blocks = terms[:, :whole].reshape(before, count, k, width * after).astype(dtype, copy=False)
    target = sums[:, :adjacent].reshape(before, count, 1, width * after)
    ones = _ones(device, k, dtype)
    if after == 1:
        device.matmul(blocks.swapaxes(2, 3), ones[:, None], out=target)  # (A, count, 1, K) @ (K, 1)
    else:
        device.matmul(ones[None], blocks, out=target)  # (1, K) @ (A, count, K, W) -> (A, count, 1, W)
    if whole < length:
        sums[:, adjacent:] = terms[:, whole:]
    return sums


@lru_cache(maxsize=1024)
def _ones(device: Device, count: int, dtype: Any) -> Array:
    """Ones (count,), never written to."""
    return device.filled((count,), 1, dtype)


@lru_cache(maxsize=4096)
def _block_sizes(length: int, after: int) -> tuple[int, int, int]:
    """How to cut (A, L, B) along L: the number of blocks, of terms added in each, and of adjacent sums it computes."""
    if after == 1:
        for k in range(tuning.BLAS_ROW_TERMS, tuning.BLAS_ROW_TERMS // 4, -1):
            if length % k == 0:
                return length // k, k, 1
        count = -(-length // tuning.BLAS_DOT_TERMS)
        return count, length // count, 1
    k = length if length <= 2 * tuning.BLAS_COLUMN_TERMS else tuning.BLAS_COLUMN_TERMS
    width = max(1, tuning.BLAS_COLUMNS // after)
    count = max(1, length // (k * width))
    return count, k, length // (count * k)


@lru_cache(maxsize=4096)
def group_axes(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, axes: tuple[int, ...]
) -> tuple[list[int], list[int], tuple[int, ...], list[tuple[int, int, int]]] | None:
    """How to sum an array without gaps; None if it has some.

    The axes in memory order, its inverse, the shape of the result in memory order, and for each run of adjacent summed
    `axes`, innermost first, the sizes (A, L, B) with the run as L.
    """
    order = sorted(range(len(shape)), key=lambda i: (strides[i], shape[i] == 1), reverse=True)
    if not is_compact(order, shape, strides, itemsize):
        return None
    sizes = [shape[i] for i in order]
    steps, end = [], len(order)
    while end:
        end -= 1
        if order[end] in axes:
            stop = end + 1
            while end and order[end - 1] in axes:
                end -= 1
            steps.append((math.prod(sizes[:end]), math.prod(sizes[end:stop]), math.prod(sizes[stop:])))
            sizes[end:stop] = [1] * (stop - end)
    return order, [order.index(i) for i in range(len(order))], tuple(sizes), steps
