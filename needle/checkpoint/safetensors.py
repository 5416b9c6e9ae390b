"""The `.safetensors` format, by the package of that name.

Format: https://huggingface.co/docs/safetensors. Arrays lie by rows and little-endian, without checksums.
"""

from __future__ import annotations

import math
import os
import re
from typing import BinaryIO

import numpy as np

from needle.backend import HostArray
from needle.backend.narrow import widen
from needle.checkpoint.arrays import Stored, host_array, little_endian
from needle.files import Broken
from needle.npz import native

__all__ = ["read_safetensors", "require_dtypes", "require_package", "write_safetensors"]

_KEY = "needle"  # the only one of the metadata: the package would write more in any order
_CODES = "BOOL", "U8", "I8", "U16", "I16", "F16", "U32", "I32", "F32", "U64", "I64", "F64", "C64"  # read as they are


def require_package(op: str) -> None:
    """Require the package safetensors, which is imported when it is needed."""
    try:
        # New in 0.8. Earlier versions write a copy of all arrays, and read through a map of the file into memory.
        from safetensors import TensorSpec  # noqa: F401
    except ImportError as error:
        raise type(error)(
            f"{op}: .safetensors needs safetensors 0.8, which `pip install 'needle-dl[safetensors]'` installs, "
            f"but got: {error}"
        ) from error


def require_dtypes(op: str, arrays: dict[str, Stored]) -> None:
    """Require dtypes that the format has: of those that are stored, all but complex128."""
    for name, value in arrays.items():
        if value.dtype == "complex128":
            raise TypeError(f"{op}: a .safetensors file must not hold complex128, but {name} is; use .npz")


def write_safetensors(path: str, arrays: dict[str, Stored], text: str | None) -> None:
    """Write arrays, and a text as the only metadata. The package takes the place of a file with one of its own.

    Arrays that do not lie by rows in native byte order are copied: others are written wrong, without an error.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    ready = {name: host_array(value) for name, value in arrays.items()}
    ready = {name: np.asarray(array, little_endian(array.dtype), order="C") for name, array in ready.items()}
    try:
        save_file(ready, path, None if text is None else {_KEY: text})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise ValueError(f"save: state must fit into a .safetensors file, but got: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_safetensors(file: BinaryIO) -> tuple[dict[str, HostArray], str | None]:
    """The arrays, by sorted names, and the text. The format cannot tell that bytes of the arrays have changed.

    Raises Broken if the header does not fit the file, or if it holds what is not read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # By its number, so that it is not mixed with a file that takes its place now.
        with safe_open(f"/dev/fd/{file.fileno()}", "numpy", backend="pread") as content:
            arrays, place = {}, 8 + int.from_bytes(file.read(8), "little")
            for name in content.offset_keys():
                form = content.get_slice(name)
                code = form.get_dtype()
                if code == "BF16":
                    arrays[name] = _read_bfloat16(file, place, form.get_shape())
                    place += arrays[name].nbytes // 2
                elif code in _CODES:
                    arrays[name] = native(name, content.get_tensor(name))
                    place += arrays[name].nbytes
                else:
                    raise Broken(f"holds {name!r} of type {code}, which is not read; BF16 and {', '.join(_CODES)} are")
            return {name: arrays[name] for name in sorted(arrays)}, (content.metadata() or {}).get(_KEY)
    except Broken:
        raise
    except (SafetensorError, ValueError) as error:  # NumPy's, of a shape
        raise Broken(f"is not complete, or not right: {error}") from error


def _read_bfloat16(file: BinaryIO, place: int, shape: list[int]) -> HostArray:
    """An array at a place in a file as float32."""
    file.seek(place)
    floats: HostArray = widen(np.fromfile(file, "<u2", math.prod(shape)), "bfloat16")
    return floats.reshape(shape)
