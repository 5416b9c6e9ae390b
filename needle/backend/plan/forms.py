"""Forms of arrays, of indices and of calls, as a tracer needs to know them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "address_of", "arrays_in", "asking_function", "has_arrays", "has_mask", "is_compact", "is_default", "is_row_major",
    "numpy_state", "owner_of", "part_of",
]  # fmt: skip

Array: TypeAlias = Any


def is_default(name: str, value: Any) -> bool:
    """Whether an option of a ufunc is the one that it has anyway."""
    return value is {"dtype": None, "where": True, "keepdims": False}.get(name, _NONE)


_NONE = object()


def asking_function() -> str:
    """The innermost function outside of this package and the one around it."""
    frame, packages = sys._getframe(1), (__package__, __package__.rpartition(".")[0])
    while frame.f_back is not None and frame.f_globals.get("__package__") in packages:
        frame = frame.f_back
    return frame.f_code.co_name


def numpy_state() -> tuple[tuple[tuple[str, str], ...], int]:
    """How NumPy treats errors of arithmetic, and the size of the buffers of its ufuncs."""
    return tuple(np.geterr().items()), np.getbufsize()  # type: ignore[arg-type]


def address_of(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def is_compact(array: Array) -> bool:
    """Whether an array fills its memory, without gaps and from its first element on."""
    span = array.itemsize + sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
    return bool(array.size and min(array.strides, default=0) >= 0 and span == array.nbytes)


def is_row_major(args: Any, kwargs: Any) -> bool:
    """Whether a method that copies takes the elements in row-major order."""
    return kwargs.get("order", "C") == "C" and not any(isinstance(arg, str) for arg in args)


def arrays_in(value: Any) -> Iterable[Array]:
    """The arrays in a value, also within tuples and lists."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from arrays_in(entry)


def entries_of(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def part_of(array: Array, index: Any) -> Array:
    """A view of a part of an array, also of a single element."""
    entries = entries_of(index)
    return array[entries if any(entry is ... for entry in entries) else (*entries, ...)]


def has_arrays(index: Any) -> bool:
    """Whether an index makes a copy."""
    return any(isinstance(entry, (np.ndarray, list, bool, np.bool)) for entry in entries_of(index))


def has_mask(index: Any) -> bool:
    return any(np.asarray(entry).dtype == bool for entry in entries_of(index) if isinstance(entry, (np.ndarray, list)))


def owner_of(array: Array) -> Array:
    """The array that owns the memory of an array."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
