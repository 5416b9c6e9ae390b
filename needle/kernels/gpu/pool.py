"""Pooling on GPUs, one launch each; at most three axes of float32."""

from __future__ import annotations

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.source import (
    THREADS,
    Source,
    blocks,
    contiguous_batch_last,
    fits,
    generic,
    replaces,
    vector_width,
    window_struct,
)
from needle.kernels.layout import Array, batch_first
from needle.kernels.pool import max_windows
from needle.kernels.window import Size, Window

source = Source("pool.cu")


@replaces(max_windows)
def max_pool(x: Array, kernel: Size, window: Window) -> Array:
    if not fits(x) or len(kernel) > 3:
        return generic(max_windows)(x, kernel, window)
    size, (batch, channels) = x.shape[2:], x.shape[:2]
    out = device_of(x).xp.empty((channels, *window.output(size, kernel), batch), x.dtype)
    width, x = vector_width(batch), contiguous_batch_last(x)
    arguments = (x, out, window_struct(window, size, kernel), np.int32(channels), np.int32(batch))
    source.launch(x, f"max_pool_{width}", blocks(out.size // width), (THREADS,), *arguments)
    return batch_first(out)
