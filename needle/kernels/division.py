"""Quotients and remainders, elementwise with broadcasting."""

from __future__ import annotations

from needle.backend import overridable, xp
from needle.kernels.layout import Array

__all__ = ["floor_divide", "fmod", "remainder"]


@overridable
def floor_divide(a: Array, b: Array) -> Array:
    """a / b rounded down; by 0 it is ±inf or NaN."""
    return xp(a).floor_divide(a, b)


@overridable
def remainder(a: Array, b: Array) -> Array:
    """a - b · floor(a / b): 0, or of the sign of b."""
    return xp(a).remainder(a, b)


@overridable
def fmod(a: Array, b: Array) -> Array:
    """a - b · trunc(a / b): 0, or of the sign of a."""
    return xp(a).fmod(a, b)
