"""Batches on GPUs: images of bytes or floats, row-major, become float32 in the memory order of networks."""

from __future__ import annotations

import math

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.source import Source, or_null
from needle.kernels.layout import Array, batch_first

source = Source("batch.cu")


def turn(x: Array, index: Array | None = None, table: Array | None = None) -> Array:
    """Images `index` of x: x (M, C, *S) -> (N, C, *S), a view of contiguous (C, *S, N).

    x is row-major, of uint8 or float32; `index` (N,) of int64, by default all of x. A byte of channel c becomes
    `table[c]` at that place; `table` (C, 256) is float32, by default bytes stay from 0 to 255. One launch; nothing
    is read on the host, so an index out of range is not noticed.

    Raises TypeError for another dtype of x, ValueError if x is not row-major.
    """
    if x.dtype.name not in ("uint8", "float32"):
        raise TypeError(f"turn: x must be of uint8 or float32, but got {x.dtype}")
    if not x.flags.c_contiguous:
        raise ValueError(f"turn: x must be row-major, but got strides {x.strides} for shape {x.shape}")
    batch, (channels, *size) = len(x if index is None else index), x.shape[1:]
    side = math.prod(size)
    length = channels * side
    out = device_of(x).xp.empty((channels, *size, batch), "float32")
    width = 4 if x.itemsize == 1 and length % 4 == 0 and device_of(x).address(x) % 4 == 0 else 1
    name = ("turn_bytes_4" if width == 4 else "turn_bytes") if x.itemsize == 1 else "turn_floats"
    if out.size:
        grid = (-(-length // (32 * width)) * -(-batch // 32),)
        options = map(or_null, (index, table))
        source.launch(x, name, grid, (256,), x, *options, out, np.int32(length), np.int32(side), np.int32(batch))
    return batch_first(out)
