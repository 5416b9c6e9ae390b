"""Memory order: arrays are indexed as (N, C, *S) and lie in memory as (C, *S, N), batch-last.

Every inner loop then runs over long contiguous stretches, and a matrix product over all positions of the whole batch is
one plain GEMM with its result already in place. `batch_last` and `batch_first` are views: only strides change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from needle import tuning
from needle.backend import Device, device_of, xp
from needle.kernels.window import Window, at

__all__ = ["batch_last", "needs_blocked_copy", "to_batch_last"]

Array = Any  # a raw array of NumPy or CuPy


def batch_last(x: Array) -> Array:
    """(N, C, *S) -> (C, *S, N), a view."""
    return x.transpose((*range(1, x.ndim), 0))


def batch_first(x: Array) -> Array:
    """(C, *S, N) -> (N, C, *S), a view."""
    return x.transpose((x.ndim - 1, *range(x.ndim - 1)))


def pad_to_batch_last(x: Array, window: Window, value: float = 0) -> Array:
    """Pad with `value`: (N, C, *S) -> (C, *S + padding, N), contiguous.

    A view of x if it is batch-last and the window pads nothing.
    """
    layout = window.padded_layout(x.shape[2:])
    source = batch_last(x)  # (C, *S, N)
    if not layout.borders and source.flags.c_contiguous:
        return source
    device = device_of(x)
    padded = device.xp.empty((x.shape[1], *layout.size, x.shape[0]), x.dtype)
    for border in layout.borders:  # only the border: filling all of it would write the interior twice
        padded[border] = value
    interior = padded[layout.interior]
    if x.size < tuning.BLOCKED_COPY_SIZE:
        interior[...] = source
    else:
        _copy(device, x, interior)
    return padded


class Padded:
    """x (N, C, *S), padded as a window says and batch-last, of which a part is copied when it is needed.

    The copy of a part is still in the cache when it is read, and threads copy the parts that they work on. A small x,
    or one in another memory order, is copied at once; nothing is copied where the window pads nothing.
    """

    def __init__(self, x: Array, window: Window) -> None:
        self.source = batch_last(x)  # (C, *S, N)
        self.padding = window.padding
        self.size = window.padded_layout(x.shape[2:]).size
        self.whole: Array = None  # (C, *S + padding, N), if it exists
        in_parts = x.nbytes >= tuning.PADDED_PARTS_BYTES and self.source.flags.c_contiguous
        if not in_parts or not any(map(any, window.padding)):
            self.whole = pad_to_batch_last(x, window)

    def part(self, box: Sequence[slice]) -> Array:
        """The box of padded elements (slices of some leading axes of *S, without steps), a view if it can be."""
        if self.whole is not None:
            part: Array = self.whole[(slice(None), *box)]
            return part
        box = (*box, *(slice(0, n) for n in self.size[len(box) :]))
        channels, *space, batch = self.source.shape
        reads, places = [], []
        for cut, (before, _), n in zip(box, self.padding, space, strict=True):
            first, last = max(cut.start - before, 0), min(cut.stop - before, n)
            reads.append(slice(first, max(first, last)))
            places.append(slice(first + before - cut.start, max(first, last) + before - cut.start))
        source: Array = self.source[(slice(None), *reads)]
        shape = tuple(cut.stop - cut.start for cut in box)
        if shape == source.shape[1:-1]:
            return source
        padded = xp(source).empty((channels, *shape, batch), source.dtype)
        for axis, place in enumerate(places, 1):
            zero_outside(padded, axis, place)
        padded[(slice(None), *places)] = source
        return padded


def zero_outside(x: Array, axis: int, place: slice) -> None:
    """Set the elements of x before and behind a place on an axis to 0."""
    if place.start > 0:
        x[at(axis, slice(0, place.start))] = 0
    if place.stop < x.shape[axis]:
        x[at(axis, slice(place.stop, None))] = 0


def needs_blocked_copy(x: Array) -> bool:
    """Whether x (N, C, *S) is row-major, and large enough that copying it to batch-last order should go by blocks."""
    return bool(
        x.size >= tuning.BLOCKED_COPY_SIZE and x.shape[0] > 1 and x.flags.c_contiguous and device_of(x).chunk_scale == 1
    )


def to_batch_last(x: Array, shared: bool = True) -> Array:
    """A copy of x (N, C, *S) in batch-last memory order, indexed as before; threads share it if they are to."""
    device = device_of(x)
    target = device.xp.empty((*x.shape[1:], x.shape[0]), x.dtype)
    _copy(device, x, target, shared)
    return batch_first(target)


def _copy(device: Device, x: Array, target: Array, shared: bool = True) -> None:
    """Copy x (N, C, *S) into `target` (C, *S, N); threads share the channels or the blocks."""
    if needs_blocked_copy(x):
        _copy_by_blocks(device, x, target, shared)
        return
    source, channels = batch_last(x), x.shape[1]

    def copy(chunk: slice) -> None:
        target[chunk] = source[chunk]

    chunks = device.chunks(channels, target.nbytes // max(1, channels))
    device.parallel_for(copy, chunks, uses_blas=False, shared=shared)


def _copy_by_blocks(device: Device, x: Array, target: Array, shared: bool) -> None:
    """Transpose row-major images block by block, each through a scratch block that stays in the cache.

    The rows of the scratch block are padded so that power-of-two strides do not evict each other from the cache.
    """
    batch, channels, rows, *others = x.shape
    row = math.prod(others)

    def transpose(place: tuple[slice, slice]) -> None:
        source, block_target = x[(slice(None), *place)], target[place]  # (N, c, r, …) and (c, r, …, N)
        length = source.size // batch
        block = device.xp.empty((batch, length + tuning.COPY_BLOCK_GAP), x.dtype)[:, :length]
        block[...] = source.reshape(batch, -1)
        block_target[...] = block.T.reshape(block_target.shape)

    channel_step = max(1, tuning.COPY_BLOCK_SIZE // (rows * row))
    row_step = max(1, min(rows, tuning.COPY_BLOCK_SIZE // row))
    channel_slices = [slice(i, i + channel_step) for i in range(0, channels, channel_step)]
    row_slices = [slice(i, i + row_step) for i in range(0, rows, row_step)]
    places = itertools.product(channel_slices, row_slices)
    device.parallel_for(transpose, places, uses_blas=False, shared=shared and x.nbytes >= tuning.SPLIT_BYTES)


def compact_kernel(w: Array) -> Array:
    """A kernel (O, C/G, *K), of which axes may have been cut, reversed or exchanged, row-major: w itself if it is."""
    if w.flags.c_contiguous:
        return w
    copy = xp(w).empty(w.shape, w.dtype)
    copy_kernel(w, copy)
    return copy


def copy_kernel(w: Array, target: Array) -> None:
    """Copy a kernel (O, C/G, *K), or one with other axes, into `target`, of its shape.

    NumPy's inner loop runs over the taps, which are few. One copy for each tap, with all channels in its loop, takes a
    sixth of the time for 2x2 of 3x3 taps and 128x64 channels, and a quarter for the rows that im2col exchanges.
    Within a step of ResNet9, 64->128 channels on 2x2 with their gradients take 0.78 of the time at batch 64, 0.71 at 8.
    """
    lead = w.ndim
    while lead > 1 and w.shape[lead - 1] < tuning.TAP_LOOP_ELEMENTS:
        lead -= 1
    count = math.prod(w.shape[lead:])
    is_one_loop = all(
        array.strides[axis - 1] == array.strides[axis] * w.shape[axis]
        for array in (w, target)
        for axis in range(lead + 1, w.ndim)
    )
    is_long = is_one_loop and count >= tuning.TAP_LOOP_ELEMENTS
    if is_long or w.size < tuning.TAP_COPY_ELEMENTS * count or device_of(w).chunk_scale > 1:
        target[...] = w
        return
    for tap in itertools.product(*map(range, w.shape[lead:])):
        target[(..., *tap)] = w[(..., *tap)]


def is_compact(order: Sequence[int], shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Whether the axes of an array lie in memory in this order, without gaps."""
    step = itemsize
    for axis in reversed(order):
        if shape[axis] > 1 and strides[axis] != step:
            return False
        step *= shape[axis]
    return True
