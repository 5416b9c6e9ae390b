"""CuPy's sorts, computed by NumPy: those of the wheel bring CUDA's runtime along in their own binary."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def replace(library: ctypes.CDLL) -> None:
    """Let CuPy's module `thrust` call NumPy on the memory of the null device."""
    from cupy.cuda import thrust

    def memory(address: int, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        data = (ctypes.c_byte * (math.prod(shape) * np.dtype(dtype).itemsize)).from_address(address)
        return np.frombuffer(data, dtype).reshape(shape)

    def sort(dtype: Any, data: int, keys: int, shape: Sequence[int]) -> None:
        library.null_run_now(b"sort")
        memory(data, shape, dtype).sort(axis=-1, kind="stable")

    def argsort(dtype: Any, indices: int, data: int, keys: int, shape: Sequence[int]) -> None:
        library.null_run_now(b"argsort")
        values = memory(data, shape, dtype)
        memory(indices, shape, "int64")[...] = values.argsort(axis=-1, kind="stable")
        values.sort(axis=-1, kind="stable")

    def lexsort(dtype: Any, indices: int, keys: int, count: int, size: int) -> None:
        library.null_run_now(b"lexsort")
        memory(indices, (size,), "int64")[...] = np.lexsort(memory(keys, (count, size), dtype))

    thrust.sort, thrust.argsort, thrust.lexsort = sort, argsort, lexsort
