"""Gradients clipped by their norm on GPUs: two launches for up to `MOST` arrays of float32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import device_of
from needle.kernels.clip import clip_norm
from needle.kernels.gpu.source import THREADS, Source, fits, generic, replaces
from needle.kernels.layout import Array, is_compact

MOST = 100  # as in the source
ARRAY = np.dtype([("values", "u8"), ("clipped", "u8"), ("count", "i4"), ("first_block", "i4")], align=True)
ARRAYS = np.dtype([("each", ARRAY, MOST), *((name, "i4") for name in ("count", "first_block", "piece"))], align=True)

source = Source("clip.cu")


@replaces(clip_norm)
def clip_norm_at_once(first: Array, arrays: Sequence[Array], max_norm: float, p: float) -> tuple[Array, list[Array]]:
    device = device_of(first)
    clipped = [device.xp.empty_like(array) for array in arrays]
    if p != 2 or not fits(*arrays) or not all(map(_is_alike, arrays, clipped)):
        return generic(clip_norm)(first, arrays, max_norm, p)
    piece = tuning.CUDA_CLIP_PIECE
    starts = [*accumulate((-(-array.size // piece) for array in arrays), initial=0)]
    blocks, address = starts[-1], device.address
    batches: list[tuple[int, Any]] = []  # the blocks of a launch, and its arrays
    for begin in range(0, len(arrays), MOST):
        struct, part = np.zeros(1, ARRAYS), slice(begin, begin + MOST)
        count = len(arrays[part])
        each = struct["each"][0, :count]
        each["values"] = [address(array) for array in arrays[part]]
        each["clipped"] = [address(array) for array in clipped[part]]
        each["count"] = [array.size for array in arrays[part]]
        each["first_block"] = starts[begin : begin + count]
        struct["count"], struct["first_block"], struct["piece"] = count, starts[begin], piece
        batches.append((starts[begin + count] - starts[begin], struct[0]))
    sums, norm = device.xp.empty(blocks, "float32"), device.xp.empty((), "float32")
    for grid, struct in batches:
        source.launch(first, "squares", (grid,), (THREADS,), struct, sums)
    for grid, struct in batches:
        arguments = (struct, sums, norm, np.int32(blocks), np.float32(max_norm))
        source.launch(first, "clip", (grid,), (THREADS,), *arguments)
    return norm, clipped


def _is_alike(array: Array, clipped: Array) -> bool:
    """Whether two arrays lie in memory in the same order, without gaps."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return bool(array.strides == clipped.strides) and is_compact(order, array.shape, array.strides, 4)
