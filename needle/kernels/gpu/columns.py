"""`unfold` and `fold` on GPUs: one launch each, of float32 and at most three axes."""

from __future__ import annotations

import math

import numpy as np

from needle.backend import device_of
from needle.kernels.conv.col2im import fold
from needle.kernels.conv.im2col import unfold
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
from needle.kernels.window import Size, Window, check_conv

source = Source("columns.cu")


@replaces(unfold)
def columns_of(x: Array, window: Window, kernel: Size) -> Array:
    batch, channels, *size = x.shape
    check_conv(x.shape, (window.groups, channels // window.groups, *kernel), None, window)
    output, rows = window.output(tuple(size), kernel), channels * math.prod(kernel)
    if not fits(x) or len(kernel) > 3 or not is_numbered(rows * math.prod(output) * batch):
        return generic(unfold)(x, window, kernel)
    columns = device_of(x).xp.empty((rows, math.prod(output), batch), x.dtype)
    _launch("unfold", contiguous_batch_last(x), columns, window_struct(window, tuple(size), kernel))
    return batch_first(columns)


@replaces(fold)
def sum_of_columns(columns: Array, window: Window, kernel: Size, size: Size) -> Array:
    batch, channels = columns.shape[0], columns.shape[1] // math.prod(kernel)
    if not fits(columns) or len(kernel) > 3 or not is_numbered(channels * math.prod(size) * batch):
        return generic(fold)(columns, window, kernel, size)
    x = device_of(columns).xp.empty((channels, *size, batch), columns.dtype)
    _launch("fold", contiguous_batch_last(columns), x, window_struct(window, size, kernel))
    return batch_first(x)


def _launch(name: str, source_array: Array, out: Array, struct: np.void) -> None:
    """Launch a kernel that reads an array (…, N) into another."""
    batch = out.shape[-1]
    width = vector_width(batch)
    count = out.size // width
    arguments = (source_array, out, struct, np.int32(count), np.int32(batch))
    source.launch(out, f"{name}_{width}", blocks(count), (THREADS,), *arguments)
