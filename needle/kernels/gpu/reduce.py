"""Sums and means on GPUs: one launch for each run of adjacent axes in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.grids import WARP, pieces, scratch, width_of
from needle.kernels.gpu.source import Source, fits, generic, replaces
from needle.kernels.layout import Array
from needle.kernels.reduce import group_axes, means, sums

source = Source("reduce.cu")
LINES = 8  # of a block of `sum_columns`
MOST_THREADS = 256


@replaces(sums)
def sum_axes(x: Array, axes: tuple[int, ...]) -> Array:
    total = _divided_sums(x, axes, 1)
    return generic(sums)(x, axes) if total is None else total


@replaces(means)
def mean_axes(x: Array, axes: tuple[int, ...], dtype: Any = None) -> Array:
    count = np.prod([x.shape[axis] for axis in axes], dtype="int64")
    total = _divided_sums(x, axes, int(count)) if dtype is None or np.dtype(dtype) == x.dtype else None
    return generic(means)(x, axes, dtype) if total is None else total


def _divided_sums(x: Array, axes: tuple[int, ...], divisor: int) -> Array | None:
    """The sums over `axes`, which stay with size 1, divided by a number; None for other dtypes, or if x has gaps."""
    grouping = group_axes(x.shape, x.strides, x.itemsize, axes) if fits(x) else None
    if grouping is None or not grouping[3]:
        return None
    order, inverse, shape, steps = grouping
    device, total = device_of(x), x.transpose(order)
    for number, (before, length, after) in enumerate(steps, 1):
        by = np.float64(divisor if number == len(steps) else 1)
        terms, total = total, device.xp.empty((before, after), x.dtype)
        if after > 1:
            sizes = np.int32(length), np.int32(after)
            source.launch(x, "sum_columns", (before * -(-after // WARP),), (WARP, LINES), terms, total, *sizes, by)
            continue
        width = width_of(terms) if length % 4 == 0 else 1
        grid, block = pieces(length // width) if before == 1 else ((before,), (_threads(length // width),))
        parts = scratch(device, grid[0] if before == 1 else 1)
        arguments = (terms, total, *parts, np.int32(length), np.int32(before == 1), by)
        source.launch(x, f"sum_rows_{width}", grid, block, *arguments)
    return total.reshape(shape).transpose(inverse)


def _threads(count: int) -> int:
    """The threads of a block that share `count` items."""
    return min(MOST_THREADS, -(-count // WARP) * WARP)
