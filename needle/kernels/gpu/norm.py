"""Normalization on GPUs: one launch forward and one backward, a block for each mean and variance.

Few long rows leave most of a GPU idle: with 16 channels, 16 of its multiprocessors work.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from needle.backend import device_of
from needle.kernels.activation import relu_grad
from needle.kernels.gpu.grids import WARP, in_order_of, width_of
from needle.kernels.gpu.source import NULL, Source, contiguous_batch_last, fits, generic, or_null, replaces
from needle.kernels.layout import Array, batch_first
from needle.kernels.normalize import Running, standardize_array, standardize_gradients
from needle.kernels.reduce import summed_to
from needle.kernels.rows import Rows

source = Source("norm.cu")
AFFINE = np.dtype([(name, "i4") for name in ("groups", "entries", "run")])
RUNNING = np.dtype(
    [(name, "u8") for name in ("mean", "variance", "counter")] + [("momentum", "f8"), ("unbiased", "i4")], align=True
)
NO_RUNNING = np.zeros(1, RUNNING)[0]
MOST_THREADS = 512  # of a block: more would have too few registers
COLUMNS, LINES = 32, 8  # of a block of `column_gradients`
LONGEST = 2**30  # elements of a row: their numbers and a step beyond fit 32 bits


@replaces(standardize_array)
def standardize_rows(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, rectified: bool = False,
    running: Running | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    served = in_rows(x, axes, weight, bias)
    if served is None or not is_tracked(running):
        return generic(standardize_array)(x, weight, bias, axes, eps, rectified, running)
    x, rows, affine = served
    device = device_of(x)
    y = device.xp.empty((rows.count, rows.length), x.dtype)
    mean, variance = (device.xp.empty(rows.column_shape, "float64") for _ in range(2))
    statistics = mean, variance, running_struct(running)
    arguments = (rows.view(x), *pointers(weight, bias), y, *statistics, affine)
    launch(source, "standardize", rows, *arguments, np.int32(rows.length), np.float64(eps), np.int32(rectified))
    return rows.unview(y), mean, variance


@replaces(standardize_gradients)
def standardize_rows_backward(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    served = in_rows(x, axes, weight, bias)
    along = served is not None and served[2]["entries"] > 1
    if served is None or not fits(grad) or (along and (served[2]["groups"] > 1 or served[2]["run"] > 1)):
        return generic(standardize_gradients)(grad, x, y, weight, bias, average, variance, axes, eps)
    x, rows, affine = served
    device = device_of(x)
    if along and y is not None:  # which the columns' gradients need as well
        grad, y = relu_grad(y, grad), None
    grad, y = in_order_of(x, grad), None if y is None else in_order_of(x, y)
    x_grad = device.xp.empty((rows.count, rows.length), x.dtype)
    size = rows.length if along else rows.count
    grads = [None if value is None else device.xp.empty(size, x.dtype) for value in (weight, bias)]
    by_row = (NULL, NULL) if along else pointers(*grads)
    views = [array if array is NULL else rows.view(array) for array in pointers(grad, x, y)]
    statistics = average, variance
    length, epsilon = np.int32(rows.length), np.float64(eps)
    (weights,) = pointers(weight)
    last = affine, length, epsilon
    launch(source, "standardize_backward", rows, *views, weights, *statistics, x_grad, *by_row, *last)
    if along:
        grid, block = (-(-rows.length // COLUMNS),), (COLUMNS, LINES)
        arguments = (*views[:2], *statistics, *pointers(*grads), np.int32(rows.count), length, epsilon)
        source.launch(x, "column_gradients", grid, block, *arguments)
    shape = x.shape if along else rows.column_shape
    if along:
        shape = tuple(1 if n == m else n for n, m in zip(shape, rows.column_shape, strict=True))
    weight_grad, bias_grad = (
        None if array is None or value is None else summed_to(value.shape, array.reshape(shape))
        for value, array in zip((weight, bias), grads, strict=True)
    )
    return rows.unview(x_grad), weight_grad, bias_grad


def in_rows(
    x: Array, axes: tuple[int, ...], weight: Array | None, bias: Array | None
) -> tuple[Array, Rows, Any] | None:
    """x, its rows and `Affine` of norm_rows.cu; a copy of x if batch-last memory order makes each channel a row.

    None where that form does not fit, or weight and bias are of other shapes, dtypes or memory orders than this.
    """
    if not fits(x):
        return None
    rows = Rows.of(x, axes)
    if rows is None and axes == (0, *range(2, x.ndim)):
        x = batch_first(contiguous_batch_last(x))
        rows = Rows.of(x, axes)
    if rows is None or rows.length > LONGEST:
        return None
    values = [value for value in (weight, bias) if value is not None]
    shape = values[0].shape if values else ()
    is_one = all(value.shape == shape and value.flags.c_contiguous for value in values)
    affine = _affine(rows, shape) if is_one and fits(*values) else None
    return None if affine is None else (x, rows, affine)


@lru_cache(maxsize=1024)
def _affine(rows: Rows, shape: tuple[int, ...]) -> Any:
    """`Affine` of norm_rows.cu for a weight that broadcasts to the array; None where its form does not fit."""
    padded = (1,) * (len(rows.order) - len(shape)) + shape
    axes = [(axis, n) for axis, n in zip(rows.order, rows.shape, strict=True) if n > 1]  # in memory order
    kept = [padded[axis] == n for axis, n in axes if rows.column_shape[axis] == n]
    reduced = [padded[axis] == n for axis, n in axes if rows.column_shape[axis] != n]
    varying = [axis for axis, _ in axes if padded[axis] > 1]
    if kept != sorted(kept) or reduced != sorted(reduced, reverse=True) or varying != sorted(varying):
        return None
    groups = math.prod(padded[axis] for axis, n in axes if rows.column_shape[axis] == n)
    entries = math.prod(padded) // groups
    return np.array([(groups, entries, rows.length // entries)], AFFINE)[0]


def is_tracked(running: Running | None) -> bool:
    """Whether kernels can write running statistics, if there are any."""
    tracked = () if running is None else (running.mean, running.variance)
    return fits(*tracked) and all(array.flags.c_contiguous for array in tracked)


def running_struct(running: Running | None) -> Any:
    """`Running` of norm_rows.cu."""
    if running is None:
        return NO_RUNNING
    device = device_of(running.mean)
    addresses = (0 if array is None else device.address(array) for array in running[:3])
    return np.array([(*addresses, running.momentum, running.unbiased)], RUNNING)[0]


def pointers(*arrays: Array | None) -> list[Array]:
    """Arrays as arguments; a null pointer for one that is missing."""
    return [or_null(array) for array in arrays]


def launch(source: Source, kernel: str, rows: Rows, *arguments: Any) -> None:
    """Launch a kernel with a block for each row, on four elements at a time where all rows are aligned so."""
    arrays = [array for array in arguments if getattr(array, "shape", ()) == (rows.count, rows.length)]
    width = width_of(*arrays) if rows.length % 4 == 0 else 1
    threads = min(MOST_THREADS, -(-rows.length // (WARP * width)) * WARP)
    source.launch(arrays[0], f"{kernel}_{width}", (rows.count,), (threads,), *arguments)
