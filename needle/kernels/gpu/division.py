"""Quotients and remainders on GPUs, where CuPy's differ from NumPy's: several launches of CuPy's own kernels.

CuPy computes `remainder` of floats as a - b · floor(a / b), which is NaN for infinite b, `floor_divide` as
floor(a / b), and `fmod` of integers through float64, which does not hold all of them. Its `fmod` of floats and its
other functions of integers are exact. What follows is Python's `float.__divmod__`.
"""

from __future__ import annotations

from needle.backend import xp
from needle.kernels import division
from needle.kernels.gpu.source import generic, replaces
from needle.kernels.layout import Array


@replaces(division.fmod)
def fmod(a: Array, b: Array) -> Array:
    namespace = xp(a)
    if namespace.result_type(a, b).kind == "f":
        return generic(division.fmod)(a, b)
    rest = namespace.remainder(a, b)
    return namespace.where((rest != 0) & ((a < 0) != (b < 0)), rest - b, rest)


@replaces(division.remainder)
def remainder(a: Array, b: Array) -> Array:
    namespace = xp(a)
    if namespace.result_type(a, b).kind != "f":
        return generic(division.remainder)(a, b)
    rest = namespace.fmod(a, b)
    moved = namespace.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
    return namespace.where(rest == 0, namespace.copysign(moved, b), moved)


@replaces(division.floor_divide)
def floor_divide(a: Array, b: Array) -> Array:
    namespace = xp(a)
    if namespace.result_type(a, b).kind != "f":
        return generic(division.floor_divide)(a, b)
    rest, plain = namespace.fmod(a, b), namespace.true_divide(a, b)
    whole = namespace.true_divide(a - rest, b)
    whole = namespace.where((rest != 0) & ((rest < 0) != (b < 0)), whole - 1, whole)
    near = namespace.where(whole == 0, namespace.copysign(namespace.zeros_like(plain), plain), namespace.rint(whole))
    return namespace.where(b == 0, plain, near)
