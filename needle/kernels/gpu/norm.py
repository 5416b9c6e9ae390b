"""Normalization on GPUs: one launch forward and one backward, a block for each mean and variance.

Few long rows leave most of a GPU idle: with 16 channels, 16 of its multiprocessors work.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from needle import kernels
from needle.backend import device_of
from needle.kernels.gpu.source import Source, fits, replaces
from needle.kernels.layout import Array, batch_first, batch_last
from needle.kernels.normalize import Running
from needle.kernels.rows import Rows

source = Source("norm.cu")
AFFINE = np.dtype([(name, "i4") for name in ("groups", "entries", "run")])
RUNNING = np.dtype(
    [(name, "u8") for name in ("mean", "variance", "counter")] + [(name, "f8") for name in ("momentum", "correction")]
)
NULL = np.uint64(0)  # a pointer
NO_RUNNING = np.zeros((), RUNNING)[()]
MOST_THREADS = 1024
WARP = 32
COLUMNS, LINES = 32, 8  # of a block of `column_gradients`
LONGEST = 2**30  # elements of a row: their numbers and a step beyond fit 32 bits


@replaces(kernels.standardize_array)
def standardize_array(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, rectified: bool = False,
    running: Running | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    x, rows = _in_rows(x, axes)
    affine = None if rows is None else _affine(rows, weight, bias)
    tracked = () if running is None else (running.mean, running.variance)
    if affine is None or not fits(*tracked) or not all(array.flags.c_contiguous for array in tracked):
        return kernels.standardize_array.__wrapped__(x, weight, bias, axes, eps, rectified, running)
    device = device_of(x)
    y = device.xp.empty((rows.count, rows.length), x.dtype)
    mean, variance = (device.xp.empty(rows.column_shape, "float64") for _ in range(2))
    statistics = mean, variance, _running_struct(running, rows.length)
    arguments = (rows.view(x), *_pointers(weight, bias), y, *statistics, affine)
    _launch("standardize", rows, *arguments, np.int32(rows.length), np.float64(eps), np.int32(rectified))
    return rows.unview(y), mean, variance


@replaces(kernels.standardize_gradients)
def standardize_gradients(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    x, rows = _in_rows(x, axes)
    affine = None if rows is None else _affine(rows, weight, bias)
    along = affine is not None and affine["entries"] > 1
    if affine is None or not fits(grad) or (along and (affine["groups"] > 1 or affine["run"] > 1)):
        return kernels.standardize_gradients.__wrapped__(grad, x, y, weight, bias, average, variance, axes, eps)
    device = device_of(x)
    if along and y is not None:  # which the columns' gradients need as well
        grad, y = kernels.relu_grad(y, grad), None
    grad, y = (None if array is None else _like(x, array) for array in (grad, y))
    x_grad = device.xp.empty((rows.count, rows.length), x.dtype)
    size = rows.length if along else rows.count
    grads = [None if value is None else device.xp.empty(size, x.dtype) for value in (weight, bias)]
    by_row = (NULL, NULL) if along else _pointers(*grads)
    views = [array if array is NULL else rows.view(array) for array in _pointers(grad, x, y)]
    statistics = average, variance
    length, epsilon = np.int32(rows.length), np.float64(eps)
    (weights,) = _pointers(weight)
    _launch("standardize_backward", rows, *views, weights, *statistics, x_grad, *by_row, affine, length, epsilon)
    if along:
        grid, block = (-(-rows.length // COLUMNS),), (COLUMNS, LINES)
        arguments = (*views[:2], *statistics, *_pointers(*grads), np.int32(rows.count), length, epsilon)
        source.launch(x, "column_gradients", grid, block, *arguments)
    shape = x.shape if along else rows.column_shape
    totals = (
        None if value is None else kernels.summed_to(value.shape, array.reshape(_entries(rows, shape, along)))
        for value, array in zip((weight, bias), grads, strict=True)
    )
    return rows.unview(x_grad), *totals


def _entries(rows: Rows, shape: tuple[int, ...], along: bool) -> tuple[int, ...]:
    """The shape of gradients for each row, or for each element of a row, in which they broadcast to the array."""
    return tuple(1 if n == m else n for n, m in zip(shape, rows.column_shape, strict=True)) if along else shape


def _in_rows(x: Array, axes: tuple[int, ...]) -> tuple[Array, Rows | None]:
    """x and its rows; a copy of x in batch-last memory order if that makes each channel a row. None: no such rows."""
    if not fits(x):
        return x, None
    rows = Rows.of(x, axes)
    if rows is None and axes == (0, *range(2, x.ndim)):
        x = batch_first(device_of(x).xp.ascontiguousarray(batch_last(x)))
        rows = Rows.of(x, axes)
    return x, None if rows is None or rows.length > LONGEST else rows


@lru_cache(maxsize=1024)
def _affine_struct(rows: Rows, shape: tuple[int, ...]) -> np.void | None:
    """`Affine` of norm.cu for a weight that broadcasts to the array; None where its form does not fit."""
    padded = (1,) * (len(rows.order) - len(shape)) + shape
    axes = [(axis, n) for axis, n in zip(rows.order, rows.shape, strict=True) if n > 1]  # in memory order
    kept = [padded[axis] == n for axis, n in axes if rows.column_shape[axis] == n]
    reduced = [padded[axis] == n for axis, n in axes if rows.column_shape[axis] != n]
    varying = [axis for axis, _ in axes if padded[axis] > 1]
    if kept != sorted(kept) or reduced != sorted(reduced, reverse=True) or varying != sorted(varying):
        return None
    groups = math.prod(padded[axis] for axis, n in axes if rows.column_shape[axis] == n)
    entries = math.prod(padded) // groups
    return np.array((groups, entries, rows.length // entries), AFFINE)[()]


def _affine(rows: Rows, weight: Array | None, bias: Array | None) -> np.void | None:
    """`Affine` of norm.cu; None where weight and bias are of other forms, dtypes or memory orders."""
    values = [value for value in (weight, bias) if value is not None]
    if not values:
        return _affine_struct(rows, ())
    is_one = fits(*values) and all(value.shape == values[0].shape and value.flags.c_contiguous for value in values)
    return _affine_struct(rows, values[0].shape) if is_one else None


def _running_struct(running: Running | None, count: int) -> np.void:
    """`Running` of norm.cu for statistics of `count` elements."""
    if running is None:
        return NO_RUNNING
    device = device_of(running.mean)
    addresses = (0 if array is None else device.address(array) for array in running[:3])
    correction = running.momentum * count / (count - 1) if running.unbiased else running.momentum
    return np.array((*addresses, running.momentum, correction), RUNNING)[()]


def _pointers(*arrays: Array | None) -> list[Array]:
    """Arrays as arguments; a null pointer for one that is missing."""
    return [NULL if array is None else array for array in arrays]


def _like(x: Array, array: Array) -> Array:
    """An array in the memory order of x: itself, or a copy."""
    if array.strides == x.strides and array.dtype == x.dtype:
        return array
    copy = device_of(x).xp.empty_like(x)
    copy[...] = array
    return copy


def _launch(kernel: str, rows: Rows, *arguments: Any) -> None:
    """Launch a kernel with a block for each row, on four elements at a time where all rows are aligned so."""
    arrays = [array for array in arguments if getattr(array, "shape", ()) == (rows.count, rows.length)]
    address = device_of(arrays[0]).address
    width = 4 if rows.length % 4 == 0 and not any(address(array) % 16 for array in arrays) else 1
    threads = min(MOST_THREADS, -(-rows.length // (WARP * width)) * WARP)
    source.launch(arrays[0], f"{kernel}_{width}", (rows.count,), (threads,), *arguments)
