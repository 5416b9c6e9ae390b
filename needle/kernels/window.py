"""The window of a convolution or a pooling: how a kernel slides over its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from needle import check

Size = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Stride, padding and dilation for each spatial axis, and groups.

    `padding` holds (before, after) for each axis. `dilation` is the step between the elements of a kernel: 1 is dense.
    """

    stride: Size
    padding: tuple[tuple[int, int], ...]
    dilation: Size
    groups: int = 1

    @classmethod
    def make(cls, op: str, rank: int, stride: Any, padding: Any, dilation: Any = 1, groups: Any = 1) -> Window:
        """A window from what a user gives: for each option one integer, or one for each of `rank` axes.

        `padding` may also hold a pair (before, after) for each axis.
        """
        return cls(
            check.sizes(op, "stride", stride, rank, least=1),
            _pairs(op, padding, rank),
            check.sizes(op, "dilation", dilation, rank, least=1),
            check.integer(op, "groups", groups, least=1),
        )

    def extent(self, kernel: Size) -> Size:
        """The sizes that a kernel spans with its dilation."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True))

    def padded(self, size: Size) -> Size:
        """The sizes of the input with its padding."""
        return tuple(n + before + after for n, (before, after) in zip(size, self.padding, strict=True))

    def output(self, size: Size, kernel: Size) -> Size:
        """The sizes of the output: floor((padded - extent) / stride) + 1; below 1 where the kernel does not fit."""
        return tuple(
            (n - e) // s + 1 for n, e, s in zip(self.padded(size), self.extent(kernel), self.stride, strict=True)
        )

    def input(self, output: Size, kernel: Size) -> Size:
        """The smallest sizes of an input that give `output`."""
        return tuple(
            s * (p - 1) + e - before - after
            for s, p, e, (before, after) in zip(self.stride, output, self.extent(kernel), self.padding, strict=True)
        )

    def without_dead_taps(self, size: Size, kernel: Size) -> tuple[tuple[slice, ...], Window]:
        """The part of a kernel that meets the input anywhere, and the window of that part; the rest meets padding only.

        On the small maps at the end of a network that is much: of 3 x 3 on a single element, the one in the middle.
        """
        return _without_dead_taps(self, size, kernel)

    def with_ceil_mode(self, size: Size, kernel: Size) -> Window:
        """This window with padding added after, so that `output` rounds up: what is left over makes a last window.

        A window counts only if it starts in the input or in the padding before it, as torch's `ceil_mode` has it.
        """
        pairs = []
        for n, extent, s, (before, after) in zip(size, self.extent(kernel), self.stride, self.padding, strict=True):
            last = -((extent - n - before - after) // s) * s  # where the last window starts, rounded up
            last -= s if last >= n + before else 0
            pairs.append((before, max(after, last + extent - n - before)))
        return replace(self, padding=tuple(pairs))


@lru_cache(maxsize=4096)  # a network asks for the same ones in every step
def _without_dead_taps(window: Window, size: Size, kernel: Size) -> tuple[tuple[slice, ...], Window]:
    parts, pairs = [], []
    sides = zip(size, window.output(size, kernel), kernel, window.stride, window.dilation, window.padding, strict=True)
    for n, p, k, s, d, (before, after) in sides:
        useful = [i for i in range(k) if i * d < n + before and s * (p - 1) + i * d >= before]
        first = min(useful[0] if useful else 0, before // d)
        cut = min(k - 1 - useful[-1] if useful else 0, after // d)
        parts.append(slice(first, k - cut))
        pairs.append((before - first * d, after - cut * d))
    return tuple(parts), replace(window, padding=tuple(pairs))


def same_padding(size: Size, kernel: Size, stride: Size, dilation: Size) -> tuple[tuple[int, int], ...]:
    """The (before, after) for each axis that give ceil(size / stride) outputs; an odd element goes after."""
    pairs = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def _pairs(op: str, padding: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """One integer, one for each axis, or one pair for each axis, as pairs."""
    if isinstance(padding, Sequence) and len(padding) == rank and all(isinstance(p, Sequence) for p in padding):
        return tuple((before, after) for before, after in (check.sizes(op, "padding", pair, 2) for pair in padding))
    return tuple((n, n) for n in check.sizes(op, "padding", padding, rank))
