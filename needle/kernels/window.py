"""The window of a convolution or a pooling: how a kernel slides over its input.

Everything here is arithmetic on sizes. A network asks for the same sizes in every step, so the results are cached. They
are Python's integers, also for NumPy's, which are equal as keys.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["Size", "Window", "at", "same_padding", "shared_window"]

Size = tuple[int, ...]
Index = tuple[slice, ...]
cached = lru_cache(maxsize=4096)


def at(axis: int, index: Any) -> tuple[Any, ...]:
    """The index that applies `index` to one axis and takes all of the axes before it."""
    return (slice(None),) * axis + (index,)


class PaddedLayout(NamedTuple):
    """The sizes of a padded input, and the indices of the input and of the padding in its array (C, *S, N)."""

    size: Size
    interior: Index
    borders: tuple[Index, ...]


@dataclass(frozen=True)
class Window:
    """Stride, padding and dilation of each spatial axis, and the number of groups.

    `padding` holds a pair (before, after) for each axis. `dilation` is the distance between taps: 1 is dense.
    """

    stride: Size
    padding: tuple[tuple[int, int], ...]
    dilation: Size
    groups: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for sizes with which a window would leave its input, TypeError unless they are ints."""
        if not _are_ints(*self.stride, *self.dilation, self.groups, *(n for pair in self.padding for n in pair)):
            raise TypeError(f"Window: sizes must be of Python's type int, but got {self}")
        is_one_rank = len(self.stride) == len(self.padding) == len(self.dilation)
        if not is_one_rank or min(*self.stride, *self.dilation, self.groups) < 1 or min(map(min, self.padding)) < 0:
            raise ValueError(f"Window: sizes must be positive, of one rank, and padding not negative, but got {self}")

    @cached
    def extent(self, kernel: Size) -> Size:
        """The sizes that a dilated kernel spans."""
        return tuple(d * (int(k) - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True))

    @cached
    def padded(self, size: Size) -> Size:
        """The sizes of the padded input."""
        return tuple(int(n) + before + after for n, (before, after) in zip(size, self.padding, strict=True))

    @cached
    def output(self, size: Size, kernel: Size) -> Size:
        """The sizes of the output, floor((padded - extent) / stride) + 1; below 1 where the kernel does not fit."""
        return tuple(
            (n - e) // s + 1 for n, e, s in zip(self.padded(size), self.extent(kernel), self.stride, strict=True)
        )

    @cached
    def input(self, output: Size, kernel: Size) -> Size:
        """The smallest input sizes that produce `output`."""
        return tuple(
            s * (int(p) - 1) + e - before - after
            for s, p, e, (before, after) in zip(self.stride, output, self.extent(kernel), self.padding, strict=True)
        )

    @cached
    def interior(self, size: Size) -> Index:
        """The index of the input within a padded (C, *S, N) array."""
        parts = (slice(before, before + int(n)) for n, (before, _) in zip(size, self.padding, strict=True))
        return (slice(None), *parts, slice(None))

    @cached
    def padded_layout(self, size: Size) -> PaddedLayout:
        """The sizes of the padded input, and the index of its interior and of its borders."""
        borders: list[Index] = []
        for axis, (n, (before, after)) in enumerate(zip(size, self.padding, strict=True), 1):
            if before:
                borders.append(at(axis, slice(0, before)))
            if after:
                borders.append(at(axis, slice(before + int(n), None)))
        return PaddedLayout(self.padded(size), self.interior(size), tuple(borders))

    @cached
    def without_dead_taps(self, size: Size, kernel: Size) -> tuple[Index, Window]:
        """Drop taps that only ever read padding: the slices of the kernel that remain, and the window for them.

        This matters on the small maps at the end of a network: of 3x3 taps on a single element, one is live.
        """
        live, pairs = [], []
        output = self.output(size, kernel)
        sides = zip(map(int, size), output, map(int, kernel), self.stride, self.dilation, self.padding, strict=True)
        for n, p, k, s, d, (before, after) in sides:
            useful = [i for i in range(k) if i * d < n + before and s * (p - 1) + i * d >= before]
            first = min(useful[0] if useful else 0, before // d)
            dropped = min(k - 1 - useful[-1] if useful else 0, after // d)
            live.append(slice(first, k - dropped))
            pairs.append((before - first * d, after - dropped * d))
        return tuple(live), shared_window(self.stride, tuple(pairs), self.dilation, self.groups)

    def with_ceil_mode(self, size: Size, kernel: Size) -> Window:
        """This window with padding added at the end, so that `output` rounds up instead of down.

        The last window counts only if it starts in the input or in the padding before it, as in torch's `ceil_mode`.
        """
        pairs = []
        for n, extent, s, (before, after) in zip(size, self.extent(kernel), self.stride, self.padding, strict=True):
            last = -((extent - n - before - after) // s) * s  # the start of the last window, rounded up
            last -= s if last >= n + before else 0
            pairs.append((before, max(after, last + extent - n - before)))
        return replace(self, padding=tuple(pairs))


def _are_ints(*sizes: Any) -> bool:
    """Whether all are Python's integers; NumPy's wrap around in the products that address memory."""
    return all(type(n) is int for n in sizes)


def check_conv(x_shape: Size, w_shape: Size, y_shape: Size | None, window: Window) -> None:
    """Raise ValueError unless x (N, C, *S), w (O, C/G, *K) and y (N, O, *P), if it is not None, fit together."""
    (_, channels, *size), (out_channels, in_per_group, *kernel), groups = x_shape, w_shape, window.groups
    is_right = (
        len(size) == len(kernel) == len(window.stride)
        and _are_ints(*size, *kernel)
        and channels == in_per_group * groups
        and out_channels % groups == 0
        and min(kernel) >= 1
        and min(output := window.output(tuple(size), tuple(kernel))) >= 1
        and y_shape in (None, (x_shape[0], out_channels, *output))
    )
    if not is_right:
        raise ValueError(
            f"correlate: shapes must fit together, but got x {x_shape}, w {w_shape} and y {y_shape} with {window}"
        )


shared_window = cached(Window)  # equal windows become one object, which caches find without comparing


def same_padding(size: Size, kernel: Size, stride: Size, dilation: Size) -> tuple[tuple[int, int], ...]:
    """The padding (before, after) of each axis for ceil(size / stride) outputs; an odd element goes after."""
    pairs = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def reads_of_tap(offset: int, size: int, outputs: int, stride: int) -> tuple[slice, slice]:
    """What a tap reads along an axis of `size` elements that is not padded, and for which of the outputs.

    The tap reads the element offset + stride·q for output q; the others read padding.
    """
    first = min(outputs, max(0, -(offset // stride)))
    last = max(first, min(outputs, (size - 1 - offset) // stride + 1))
    start = offset + stride * first
    return slice(start, start + stride * (last - first), stride) if last > first else slice(0, 0), slice(first, last)


def axis_slices(window: Window, axis: int, taps: int, outputs: int, start: int = 0) -> list[slice]:
    """For each of the `taps` along one spatial axis, the padded elements that it reads for `outputs` outputs.

    `start` is the first of these outputs.
    """
    stride, dilation = window.stride[axis], window.dilation[axis]
    length = stride * (outputs - 1) + 1 if outputs else 0
    firsts = range(start * stride, start * stride + taps * dilation, dilation)
    return [slice(first, first + length, stride) for first in firsts]


def tap_slices(window: Window, kernel: Size, output: Size, start: int = 0) -> list[tuple[Size, Index]]:
    """For each tap, its position in *K and the index of the elements of a padded (C, *S, N) that it reads.

    `start` is the first row, where `output` is a block of output rows.
    """
    sides = enumerate(zip(kernel, output, strict=True))
    slices = [axis_slices(window, axis, k, p, 0 if axis else start) for axis, (k, p) in sides]
    every = [slice(None)]
    return list(zip(itertools.product(*map(range, kernel)), itertools.product(every, *slices, every), strict=True))
