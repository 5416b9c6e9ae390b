"""Many arrays clipped by the norm of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

from needle.backend import compute_dtype, overridable, xp
from needle.kernels.layout import Array
from needle.kernels.reduce import sums

__all__ = ["clip_norm"]


@overridable
def clip_norm(first: Array, arrays: Sequence[Array], max_norm: float, p: float) -> tuple[Array, list[Array]]:
    """The p-norm of all elements, an array (), and new arrays: times min(1, max_norm / (norm + 1e-6)).

    `first` is the first of the arrays, which are on one device.
    """
    norm = _norm(arrays, p)
    scale = xp(norm).minimum(max_norm / (norm + 1e-6), 1)
    return norm, [(array * scale).astype(array.dtype, copy=False) for array in arrays]


def _norm(arrays: Sequence[Array], p: float) -> Array:
    """The p-norm of all elements of the arrays, an array of shape () on their device."""
    arrays = [array.astype(compute_dtype(array.dtype), copy=False) for array in arrays]
    namespace = xp(arrays[0])
    if math.isinf(p):
        return reduce(namespace.maximum, (abs(x).max() for x in arrays if x.size), namespace.zeros((), arrays[0].dtype))
    powers = (x * x if p == 2 else abs(x) ** p for x in arrays)
    first, *others = (sums(x, tuple(range(x.ndim))).reshape(()) for x in powers)
    total = sum(others, first)
    return namespace.sqrt(total) if p == 2 else total ** (1 / p)
