"""The window of a convolution or a pooling: how a kernel slides over its input."""

from __future__ import annotations

from dataclasses import dataclass
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
        """A window from what a user gives: for each option one integer, or one for each of `rank` axes."""
        return cls(
            check.sizes(op, "stride", stride, rank, least=1),
            tuple((n, n) for n in check.sizes(op, "padding", padding, rank)),
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
