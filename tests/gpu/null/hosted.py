"""What the null device leaves to NumPy: CuPy's sorts bring CUDA's runtime along in their own binary, its transforms and
solvers use libraries that are not played here.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def replace(library: ctypes.CDLL) -> None:
    """Let CuPy's sorts, transforms and determinants call NumPy on the memory of the null device; each is a kernel."""
    import cupy
    from cupy.cuda import thrust

    def memory(address: int, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        data = (ctypes.c_byte * (math.prod(shape) * np.dtype(dtype).itemsize)).from_address(address)
        return np.ndarray(tuple(shape), dtype, data)

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

    def placed(result: Any) -> Any:
        result = np.ascontiguousarray(result).reshape(np.shape(result))
        out = cupy.empty(result.shape, result.dtype)
        library.null_run_now(b"copy")  # the allocation's poison, if it is late
        memory(out.data.ptr, out.shape, out.dtype)[...] = result
        return out

    def by_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(a: Any, *arguments: Any, **options: Any) -> Any:
            library.null_run_now(function.__name__.encode())
            x = cupy.ascontiguousarray(a)
            library.null_run_now(b"copy")
            result = function(memory(x.data.ptr, x.shape, x.dtype), *arguments, **options)
            return tuple(map(placed, result)) if isinstance(result, tuple) else placed(result)

        return called

    thrust.sort, thrust.argsort, thrust.lexsort = sort, argsort, lexsort
    for module, reference, names in (
        (cupy.fft, np.fft, ("fft", "ifft")),
        (cupy.linalg, np.linalg, ("det", "inv", "svd")),
    ):
        for name in names:
            setattr(module, name, by_numpy(getattr(reference, name)))
