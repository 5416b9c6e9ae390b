"""Arrays of any shapes, one after the other in a flat one."""

from __future__ import annotations

from collections.abc import Sequence

from needle.backend import device_of, overridable, xp
from needle.kernels.layout import Array

__all__ = ["AT_ONCE", "join"]

AT_ONCE = 8  # arrays that CuPy joins without uploading a table of their addresses


@overridable
def join(first: Array, arrays: Sequence[Array], out: Array) -> None:
    """Write arrays into `out` (N,), which has their dtype and the size of all; `first` is the first of them."""
    step = AT_ONCE if device_of(out).is_async else len(arrays)
    start = 0
    for i in range(0, len(arrays), step):
        rows = [array.reshape(-1) for array in arrays[i : i + step]]
        stop = start + sum(row.size for row in rows)
        xp(out).concatenate(rows, out=out[start:stop])
        start = stop
