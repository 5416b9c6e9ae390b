"""Arrays in files: which may be stored, and in which byte order they are written."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from needle.autograd import Tensor
from needle.backend import HostArray, to_host
from needle.backend.device import find_device
from needle.backend_ndarray import NDArray

__all__ = ["Stored", "host_array", "is_array", "is_stored", "little_endian"]

Stored: TypeAlias = Any  # an array of any device, a NumPy scalar, a Tensor or an NDArray


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
