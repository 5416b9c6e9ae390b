"""Pooling on GPUs: one launch each, of float32 and at most three axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.source import (
    THREADS,
    Source,
    blocks,
    contiguous_batch_last,
    fits,
    generic,
    is_numbered,
    replaces,
    vector_width,
    window_struct,
)
from needle.kernels.layout import Array, batch_first
from needle.kernels.pool import gather_at_max, locate_max, max_windows, scatter_to_max, spread_windows, sum_windows
from needle.kernels.window import Size, Window

source = Source("pool.cu")


def _serves(kernel: Size, side: Size, *arrays: Array) -> bool:
    """Whether the kernels serve arrays (N, C, …) and a result (N, C, *side)."""
    return len(kernel) <= 3 and fits(*arrays) and is_numbered(math.prod((*arrays[0].shape[:2], *side)))


def _pooled(name: str, width: int, arrays: tuple[Array, ...], side: Size, struct: np.void, dtype: Any = None) -> Array:
    """The result (N, C, *side) of a kernel on arrays (N, C, …), of which a thread takes `width` images."""
    batch, channels = arrays[0].shape[:2]
    out = device_of(arrays[0]).xp.empty((channels, *side, batch), dtype or arrays[0].dtype)
    arrays = tuple(map(contiguous_batch_last, arrays))
    count = out.size // width
    source.launch(out, name, blocks(count), (THREADS,), *arrays, out, struct, np.int32(count), np.int32(batch))
    return batch_first(out)


@replaces(max_windows)
def max_pool(x: Array, kernel: Size, window: Window) -> Array:
    size = x.shape[2:]
    side = window.output(size, kernel)
    if not _serves(kernel, side, x):
        return generic(max_windows)(x, kernel, window)
    width, struct = vector_width(x.shape[0]), window_struct(window, size, kernel)
    return _pooled(f"max_pool_{width}", width, (x,), side, struct)


@replaces(scatter_to_max)
def max_pool_back(y: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    size = x.shape[2:]
    if not _serves(kernel, size, y, x, best):
        return generic(scatter_to_max)(y, x, best, kernel, window)
    width = vector_width(x.shape[0])
    return _pooled(f"max_pool_back_{width}", width, (y, x, best), size, window_struct(window, size, kernel))


@replaces(gather_at_max)
def max_pool_gather(g: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    if not _serves(kernel, best.shape[2:], g, x, best):
        return generic(gather_at_max)(g, x, best, kernel, window)
    struct = window_struct(window, x.shape[2:], kernel)
    return _pooled("max_pool_gather", 1, (g, x, best), best.shape[2:], struct)


@replaces(locate_max)
def max_pool_locate(x: Array, best: Array, kernel: Size, window: Window) -> Array:
    if not _serves(kernel, best.shape[2:], x, best):
        return generic(locate_max)(x, best, kernel, window)
    struct = window_struct(window, x.shape[2:], kernel)
    return _pooled("max_pool_locate", 1, (x, best), best.shape[2:], struct, "int64")


@replaces(sum_windows)
def sum_pool(x: Array, kernel: Size, window: Window) -> Array:
    size = x.shape[2:]
    side = window.output(size, kernel)
    if not _serves(kernel, side, x):
        return generic(sum_windows)(x, kernel, window)
    width, struct = vector_width(x.shape[0]), window_struct(window, size, kernel)
    return _pooled(f"sum_pool_{width}", width, (x,), side, struct)


@replaces(spread_windows)
def sum_pool_back(y: Array, kernel: Size, window: Window, size: Size) -> Array:
    if not _serves(kernel, size, y):
        return generic(spread_windows)(y, kernel, window, size)
    width = vector_width(y.shape[0])
    return _pooled(f"sum_pool_back_{width}", width, (y,), size, window_struct(window, size, kernel))
