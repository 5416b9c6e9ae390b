"""Floats in 16 bits, for what sends them: float16, or bfloat16, the upper half of a float32.

float16 has eleven binary digits and ends at 65504; bfloat16 has eight, and the range of float32.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from needle.backend.device import without_warnings

__all__ = ["WIRES", "narrow", "rounded", "widen"]

Array: TypeAlias = Any  # a raw array of NumPy, CuPy or another registered library

WIRES = ("float16", "bfloat16")


def narrow(array: Array, wire: str) -> Array:
    """Floats (*S) rounded to `wire`, one of `WIRES`: (*S) of float16, or the bits of bfloat16 as uint16; by rows.

    The nearest number is taken, of two the even one; what lies beyond the range becomes infinite, and NaN stays NaN.
    float64 is rounded to float32 first, so that every device returns the same bits.
    """
    with without_warnings():
        floats = array.astype("float32", order="C", copy=False)
        if wire == "float16":
            return floats.astype("float16")
    floats = floats.reshape(-1)  # what has no axes would become a scalar
    bits = floats.view("uint32")
    words = bits >> 16
    words &= 1  # a tie goes to the even number
    words += 0x7FFF
    words += bits
    words >>= 16
    words = words.astype("uint16")
    words[floats != floats] = 0x7FC0  # the sum above may have carried through all bits of a NaN
    return words.reshape(array.shape)


def widen(words: Array, wire: str) -> Array:
    """The numbers of `narrow(…, wire)` as float32, which holds all of them."""
    if wire == "float16":
        return words.astype("float32")
    bits = words.astype("uint32")
    bits <<= 16
    return bits.view("float32")


def rounded(array: Array, wire: str) -> Array:
    """Floats (*S) as float32 (*S) of numbers that `wire` holds."""
    return widen(narrow(array, wire), wire)
