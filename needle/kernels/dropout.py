"""Dropout by numbers that follow from a key, so that the same call gives them again and nothing is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from needle.backend import overridable, xp
from needle.backend.splitmix import uniform_from
from needle.kernels.layout import Array
from needle.kernels.window import Size

__all__ = ["Draws", "Part", "drop", "of_part"]


class Part(NamedTuple):
    """The indices from start to stop along an axis."""

    axis: int
    start: int
    stop: int


class Draws(NamedTuple):
    """Uniform numbers in [0, 1) of `shape` that follow from a key (`Device.draw_key`), or a part of them.

    They broadcast to the array that they are for.
    """

    key: Any
    shape: Size
    part: Part | None = None


@overridable
def drop(x: Array, p: float, draws: Draws) -> Array:
    """x / (1 - p) where the number of an element is at most 1 - p, elsewhere 0·x; 0 < p < 1."""
    numbers = of_part(uniform_from(xp(x), draws.key, draws.shape), draws.part)
    return x * (numbers <= 1 - p) / (1 - p)


def of_part(numbers: Array, part: Part | None) -> Array:
    """A view of that part, or all."""
    return numbers if part is None else numbers[(*[slice(None)] * part.axis, slice(part.start, part.stop))]
