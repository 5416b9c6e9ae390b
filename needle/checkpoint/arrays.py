"""Arrays in files: which may be stored, their bytes without a copy of the whole, and room for those that are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from needle.autograd import Tensor
from needle.backend import HostArray, to_host
from needle.backend.device import find_device
from needle.backend_ndarray import NDArray

__all__ = ["Broken", "Stored", "blocks", "host_array", "is_array", "is_shape", "is_stored", "little_endian"]
__all__ += ["native", "room_for"]

Stored: TypeAlias = Any  # an array of any device, a NumPy scalar, a Tensor or an NDArray

_PIECE = 2**17  # elements that are brought into order at a time
_LARGEST, _MOST_AXES = 2**63 - 1, 64  # as NumPy has them


class Broken(ValueError):
    """What is wrong with a file that is read: the end of a sentence that begins with its path."""


def is_array(value: Any) -> bool:
    """Whether a value of a state is stored as an array."""
    if isinstance(value, (Tensor, NDArray)):
        return True
    if isinstance(value, (np.generic, np.ma.MaskedArray)):
        return not isinstance(value, (np.str_, np.ma.MaskedArray))
    return find_device(value) is not None


def is_stored(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a dtype are stored: those of bools and numbers.

    Extended floats are not among them: their bytes mean different numbers on different machines.
    """
    return dtype.kind in "biufc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype in the byte order of the files."""
    return dtype.newbyteorder("<")


def host_array(value: Stored) -> HostArray:
    """The values of a stored array on the host, without a copy if they are there."""
    return np.asarray(to_host(value.array if isinstance(value, (Tensor, NDArray)) else value))


def blocks(array: HostArray, dtype: np.dtype[Any]) -> Iterator[memoryview]:
    """The bytes of an array in row-major order as `dtype`: at once if memory has them so, else in pieces."""
    if array.flags.c_contiguous and array.dtype == dtype:
        yield array.reshape(-1).view(np.uint8).data
        return
    for piece in np.nditer(
        array,
        ["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=dtype,
        order="C",
        casting="equiv",
        buffersize=_PIECE,
    ):
        yield np.ascontiguousarray(piece).view(np.uint8).data


def is_shape(value: Any) -> bool:
    """Whether a value in a header is a sequence of sizes; short and small enough to be multiplied in no time."""
    return (
        isinstance(value, (list, tuple))
        and len(value) <= _MOST_AXES
        and all(type(size) is int and 0 <= size <= _LARGEST for size in value)
    )


def room_for(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"] = "C") -> HostArray:
    """An array whose values are to be read; Broken if NumPy cannot have one."""
    try:
        return np.empty(shape, dtype, order=order)
    except ValueError as error:
        raise Broken(f"holds {name!r} of shape {shape}, which NumPy cannot hold: {error}") from error


def native(name: str, array: HostArray) -> HostArray:
    """An array that was read, in native byte order; Broken if it holds bools other than 0 and 1."""
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise Broken(f"holds {name!r} with bools other than 0 and 1")
    return array if array.dtype.isnative else array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
