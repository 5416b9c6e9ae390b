"""Arrays in binary files, plain or gzipped: a header, then the values; they are read, or mapped into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np

from needle.backend import HostArray
from needle.files import Path, open_file, read_at_most

__all__ = ["MappedArray", "map_array", "read_array"]

Header: TypeAlias = Callable[[str, Path, BinaryIO], tuple[np.dtype[Any], tuple[int, ...]]]  # op, path, file

_GZIP_MAGIC = b"\x1f\x8b"


class MappedArray(np.memmap):
    """Values in a file, read when they are used. A pickle of one, or of a view of it, holds their place in the file.

    Unpickling raises ValueError if the file has another length by then, and OSError if it is gone.
    """

    _mmap: Any  # NumPy's: the map of the whole file, None for a copy in memory

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._mmap is None:
            return super().__reduce_ex__(protocol)
        start = np.frombuffer(self._mmap, np.uint8)
        place = self.__array_interface__["data"][0] - start.__array_interface__["data"][0]
        return _mapped_again, (str(self.filename), len(start), place, self.dtype, self.shape, self.strides)


def map_array(op: str, path: Path, dtype: Any, shape: Sequence[int], start: int = 0) -> HostArray:
    """The values from byte `start` to the end of a file, which must be as many as `shape` says. They are read-only."""
    with open_file(op, path) as file:
        _check_size(op, path, np.dtype(dtype), shape, os.fstat(file.fileno()).st_size - start)
        values = MappedArray(file, np.uint8, "r")[start:] if math.prod(shape) else np.empty(0, np.uint8)
    return _shaped(op, path, values.view(dtype), shape)


def _mapped_again(
    path: str, length: int, place: int, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]
) -> HostArray:
    """The view of a file that was pickled."""
    whole = map_array("MappedArray", path, np.uint8, (length,))
    return np.ndarray(shape, dtype, whole, place, strides).view(MappedArray)


def read_array(op: str, path: Path, header: Header, *, is_mapped: bool = False) -> HostArray:
    """The array in a file that begins with a header, which `header` reads and checks: in native byte order.

    Compression by gzip is recognized by the first bytes, not by the file name. No more is read, or unpacked, than the
    header announces. A plain file is mapped if asked; then the byte order is that of the file.

    Raises OSError if the path is not a regular file that can be read, and ValueError if the file is truncated, or is
    longer than its header says.
    """
    with open_file(op, path) as file:
        magic = file.read(2)
        file.seek(0)
        if magic != _GZIP_MAGIC:
            dtype, shape = header(op, path, file)
            start, length = file.tell(), os.fstat(file.fileno()).st_size
            if is_mapped:
                return map_array(op, path, dtype, shape, start)
            return _read_values(op, path, file, dtype, shape, length - start)

        import gzip  # imported when they are needed: the imports take two milliseconds
        import zlib

        try:
            with gzip.open(file) as unpacked:
                dtype, shape = header(op, path, cast(BinaryIO, unpacked))
                return _read_values(op, path, cast(BinaryIO, unpacked), dtype, shape, None)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{op}: a gzipped file must be complete, but {path} is not: {error}") from error


def _read_values(
    op: str, path: Path, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], available: int | None
) -> HostArray:
    """The values of which `available` bytes are left in a file; None if that is not known before the end."""
    size = math.prod(shape) * dtype.itemsize
    found: int | str = size if available is None else available
    if found == size:
        content = read_at_most(file, size + 1)  # one more, to reach the end and its checksum
        found = len(content) if len(content) <= size else "more"
    _check_size(op, path, dtype, shape, found)
    array = _shaped(op, path, np.frombuffer(content, dtype), shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _shaped(op: str, path: Path, values: HostArray, shape: Sequence[int]) -> HostArray:
    """Values in a shape, of which NumPy may not be able to hold the axes."""
    try:
        return values.reshape(tuple(shape))
    except ValueError as error:
        raise ValueError(f"{op}: NumPy must be able to hold shape {tuple(shape)} of {path}, but: {error}") from error


def _check_size(op: str, path: Path, dtype: np.dtype[Any], shape: Sequence[int], found: int | str) -> None:
    """Require that a file holds as many bytes of values as its shape says."""
    size = math.prod(shape) * dtype.itemsize
    if found != size:
        raise ValueError(
            f"{op}: data of shape {tuple(shape)} and type {dtype.name} must have {size} bytes, but {path} has {found}"
        )
