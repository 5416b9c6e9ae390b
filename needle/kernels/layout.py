"""Memory order: logical (N, C, *S) arrays, physically batch-innermost (C, *S, N).

Every inner loop then runs over long contiguous stretches, and a matrix product over all positions of the whole batch
is one plain GEMM whose result is already in place. Shape is one thing, strides another: `innermost` and `outermost`
are views.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from needle.backend import device_of, xp
from needle.kernels.window import Size, Window

Array = Any  # a raw array of NumPy or CuPy
TURNED = 1 << 16  # elements from which on a copy into another order goes by blocks
STRETCH = 512  # elements of an image in a block


def batch_last(x: Array) -> Array:
    """(N, C, *S) -> (C, *S, N), a view."""
    return x.transpose((*range(1, x.ndim), 0))


def batch_first(x: Array) -> Array:
    """(C, *S, N) -> (N, C, *S), a view."""
    return x.transpose((x.ndim - 1, *range(x.ndim - 1)))


def padded(x: Array, window: Window, value: float = 0) -> Array:
    """(N, C, *S) -> (C, *S + padding, N), contiguous; without padding a copy only where x is in another order."""
    size = x.shape[2:]
    if window.padded(size) == size and batch_last(x).flags.c_contiguous:
        return batch_last(x)
    whole = xp(x).empty((x.shape[1], *window.padded(size), x.shape[0]), x.dtype)
    for axis, (n, (before, after)) in enumerate(zip(size, window.padding, strict=True), 1):
        lead = (slice(None),) * axis
        if before:  # the border alone: to fill all would write the inside twice
            whole[(*lead, slice(0, before))] = value
        if after:
            whole[(*lead, slice(before + n, None))] = value
    _place(x, whole[inside(size, window)])
    return whole


def is_turned_by_blocks(x: Array) -> bool:
    """Whether x (N, C, *S) is row-major, and so big that the way to batch-innermost order goes by blocks."""
    return x.shape[0] > 1 and x.size >= TURNED and device_of(x).chunk_scale == 1 and bool(x.flags.c_contiguous)


def turned(x: Array) -> Array:
    """(N, C, *S) as a copy in batch-innermost order."""
    whole = xp(x).empty((*x.shape[1:], x.shape[0]), x.dtype)
    _place(x, whole)
    return batch_first(whole)


def _place(x: Array, target: Array) -> None:
    """Copy x (N, C, *S) into (C, *S, N).

    Row-major images go by blocks that lie in the cache, and a little apart, since lines that are a power of two of
    bytes apart drive each other out: NumPy's own copy, which steps over whole images, takes two to four times as long.
    """
    device, (batch, channels, rows, *rest) = device_of(x), x.shape
    row = math.prod(rest)
    if not is_turned_by_blocks(x):
        source = batch_last(x)

        def copy(part: slice) -> None:
            target[part] = source[part]

        device.parallel_for(copy, device.chunks(channels, target.nbytes // max(1, channels)), uses_blas=False)
        return

    def turn(piece: tuple[slice, slice]) -> None:
        part, met = x[(slice(None), *piece)], target[piece]
        block = xp(x).empty((batch, part.size // batch + 16), x.dtype)[:, : part.size // batch]
        block[...] = part.reshape(batch, -1)
        met[...] = block.T.reshape(met.shape)

    together = max(1, STRETCH // (rows * row)), max(1, min(rows, STRETCH // row))  # channels and rows in a block
    cuts = [[slice(i, i + n) for i in range(0, m, n)] for m, n in zip((channels, rows), together, strict=True)]
    device.parallel_for(turn, itertools.product(*cuts), uses_blas=False)


def part_of(array: Array, axis: int, part: slice) -> Array:
    """A stretch along a negative axis; of an operand that broadcasts along it, all."""
    if -axis > array.ndim or array.shape[axis] == 1:
        return array
    return array[(..., part, *(slice(None),) * (-axis - 1))]


def swapped(w: Array, groups: int) -> Array:
    """(O, C/G, *K) -> (C, O/G, *K): a kernel with its channels exchanged within each group."""
    w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
    return w.reshape(groups * w.shape[1], *w.shape[2:])


def inside(size: Size, window: Window) -> tuple[slice, ...]:
    """The index of what is not padding in a padded (C, *S, N) array."""
    parts = (slice(before, before + n) for n, (before, _) in zip(size, window.padding, strict=True))
    return (slice(None), *parts, slice(None))


def taps(window: Window, kernel: Size, output: Size, start: int = 0) -> Iterator[tuple[Size, tuple[slice, ...]]]:
    """For each position of the kernel, the index of the padded elements (C, *S, N) that it meets in each output.

    `start` is the first output row, for an `output` that is a block of rows.
    """
    for position in itertools.product(*map(range, kernel)):
        corner = [k * d for k, d in zip(position, window.dilation, strict=True)]
        corner[0] += start * window.stride[0]
        parts = (
            slice(c, c + s * (p - 1) + 1, s) if p else slice(0)
            for c, s, p in zip(corner, window.stride, output, strict=True)
        )
        yield position, (slice(None), *parts, slice(None))
