"""Random numbers that a device computes from one key: SplitMix64, a generator whose i-th number needs no others.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014), figure 17.
"""

from __future__ import annotations

from math import prod
from typing import Any

__all__ = ["splitmix64", "uniform_from"]

GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # the odd integer nearest to 2^64 divided by the golden ratio
MIX = (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)  # the shifts and factors of the finalizer


def splitmix64(xp: Any, key: Any, count: int) -> Any:
    """The first `count` numbers of SplitMix64 with the seed `key`, an integer or uint64 (1,), as uint64 (count,)."""
    z = xp.arange(1, count + 1, dtype="uint64")
    z *= xp.uint64(GOLDEN_GAMMA)
    z += xp.uint64(key) if isinstance(key, int) else key
    for shift, factor in MIX:
        z ^= z >> xp.uint64(shift)
        z *= xp.uint64(factor)
    z ^= z >> xp.uint64(31)
    return z


def uniform_from(xp: Any, key: Any, shape: tuple[int, ...]) -> Any:
    """Uniform float64 numbers in [0, 1) of `shape`: the upper 53 bits of each number."""
    bits = splitmix64(xp, key, prod(shape))
    bits >>= xp.uint64(11)
    return (bits.astype("float64") * 2.0**-53).reshape(shape)
