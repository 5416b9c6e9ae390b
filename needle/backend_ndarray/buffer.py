"""The memory under arrays, and views of it by shape and strides; both count elements, not bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from needle.backend import device_of, xp

__all__ = ["Buffer"]

Shape: TypeAlias = tuple[int, ...]


class Buffer:
    """The memory under an array and all its views: the course's `_handle`.

    It spans the elements from the lowest address to the highest, whatever the strides: one element where broadcasting
    repeats it, and the gaps between the elements of a slice.
    """

    def __init__(self, array: Any) -> None:
        root = base = array
        while base is not None:  # the last base need not be an array: it may be a bytes object, or a capsule
            if type(base) is type(array) and base.dtype == array.dtype:  # another dtype would count in other units
                root = base
            base = getattr(base, "base", None)
        ascending = (slice(None, None, -1 if step < 0 else 1) for step in root.strides)
        self.root = root[(..., *ascending)]

    @property
    def flat(self) -> Any:
        """All elements in memory order, as a raw array of one axis."""
        return xp(self.root).lib.stride_tricks.as_strided(self.root, (self.size,), (self.root.itemsize,))

    @property
    def size(self) -> int:
        """The number of elements."""
        itemsize = int(self.root.itemsize)
        return reach(self.root.shape, [step // itemsize for step in self.root.strides])[1]

    def ptr(self) -> int:
        """The lowest address."""
        return device_of(self.root).address(self.root)


def row_major(shape: Shape) -> Shape:
    """The strides, in elements, of a compact array."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def reach(shape: Shape, strides: Sequence[int]) -> tuple[int, int]:
    """The range [first, end) of elements that a view reads, relative to its element at index 0."""
    if 0 in shape:
        return 0, 0
    steps = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + 1


def strided(op: str, handle: Buffer, shape: Shape, strides: Sequence[int], offset: int) -> Any:
    """A raw view of the memory; strides and offset count elements.

    Raises ValueError, which names `op`, if an element would lie outside of the memory.
    """
    first, end = reach(shape, strides)
    if offset + first < 0 or offset + end > handle.size:
        raise ValueError(
            f"{op}: elements must lie in the memory of {handle.size}, but shape {shape} with strides "
            f"{tuple(strides)} at offset {offset} needs [{offset + first}, {offset + end})"
        )
    root = handle.flat
    steps = tuple(step * int(root.itemsize) for step in strides)
    return xp(root).lib.stride_tricks.as_strided(root[offset:], shape, steps)
