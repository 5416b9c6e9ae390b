"""Arrays of numbers in MATLAB's files of level 5, the format of versions 5 to 7.2, which scipy writes, too.

Format: MathWorks, "MAT-File Format", chapter 1: a header of 128 bytes, then elements, each a type, a number of bytes
and the data. A matrix consists of elements: flags, sizes, name and values. It may be compressed as a whole.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from needle.backend import HostArray
from needle.files import Broken, Path, open_whole, read_at_most

__all__ = ["read_mat"]

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # of values
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_CLASSES = range(6, 16)  # of matrices: those of numbers
_COMPLEX = 0x800  # a flag
_LONGEST = 2**10  # bytes of a matrix's name, or of its sizes
_PIECE = 2**16  # bytes to unpack at a time


def read_mat(path: Path, name: str) -> HostArray:
    """Read the array `name` of a file of MATLAB: real numbers of the dtype in which they are stored, by columns.

    MATLAB stores doubles that are small integers as bytes: then the dtype is uint8. Other variables are passed over.
    No more is read, or unpacked, than the header of the array announces.

    Raises OSError (FileNotFoundError, …) if the path is not a regular file that can be read, and ValueError if it is of
    another version (7.3 is HDF5), is broken, or has no such array.
    """
    with open_whole("read_mat", path, f"MATLAB 5 file with {name}") as file:
        try:
            return _find(file, name)
        except zlib.error as error:
            raise Broken(f"holds a broken array: {error}") from error


def _find(file: BinaryIO, name: str) -> HostArray:
    """The array of a name."""
    header, end = file.read(128), os.fstat(file.fileno()).st_size
    order = {b"IM": "<", b"MI": ">"}.get(header[126:])
    if order is None:
        raise Broken(f"begins with {header[:16]!r}, no header of 128 bytes")
    if (version := struct.unpack(f"{order}H", header[124:126])[0]) != 0x100:
        raise Broken(f"is of version {version:#x}" + (", HDF5, which h5py reads" if version == 0x200 else ""))
    start, names = 128, []
    while start < end:
        file.seek(start)
        kind, size = _words(file, f"{order}II")
        if start + 8 + size > end:
            raise Broken(f"announces {size} bytes at byte {start}, and holds {end - start - 8}")
        source: _Source = file
        if kind == _COMPRESSED:
            source = _Unpacked(file, size)
            kind, _ = _words(source, f"{order}II")
        if kind == _MATRIX:
            matrix = _Matrix(source, order)
            if matrix.name == name:
                values, takes = matrix.values(source), file.tell() - start - 8
                if takes > size:
                    raise Broken(f"announces {size} bytes at byte {start} for {name}, which has {takes}")
                return values
            names.append(matrix.name)
        start += 8 + size
    raise Broken(f"holds the arrays {names!r:.200}")


class _Source(Protocol):
    """What bytes are read from: a file, or a compressed element."""

    def read(self, size: int, /) -> bytes: ...


class _Unpacked:
    """The content of a compressed element, of which `left` bytes are left in the file."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left, self.inflater = file, left, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most `size`; none at the end, where the checksum is compared."""
        unpacked = b""
        while size and not unpacked and not self.inflater.eof:
            packed = self.inflater.unconsumed_tail
            if not packed:
                packed = self.file.read(min(_PIECE, self.left))
                self.left -= len(packed)
            unpacked = self.inflater.decompress(packed, size)
            if not (packed or unpacked):
                raise Broken("ends within a compressed array")
        return unpacked


def _exactly(source: _Source, size: int) -> bytearray:
    content = read_at_most(cast(BinaryIO, source), size)
    if len(content) < size:
        raise Broken(f"holds {len(content)} bytes where an array announces {size}")
    return content


def _words(source: _Source, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, _exactly(source, struct.calcsize(form)))


class _Matrix:
    """The flags, the sizes and the name of a matrix, whose values come next."""

    def __init__(self, source: _Source, order: str) -> None:
        self.order = order
        flags, sizes = _part(source, order), _part(source, order)
        if len(flags) != 8 or len(sizes) % 4:
            raise Broken(f"has a matrix with {len(flags)} bytes of flags and {len(sizes)} of sizes")
        self.flags = struct.unpack(f"{order}II", flags)[0]
        self.shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
        self.name = _part(source, order).decode("latin-1")

    def values(self, source: _Source) -> HostArray:
        """The values, up to the end of the element."""
        if self.flags & 0xFF not in _CLASSES or self.flags & _COMPLEX or not 2 <= len(self.shape) <= 32:
            raise Broken(f"holds {self.name} of flags {self.flags:#x} and shape {self.shape}, no real numbers")
        kind, size, content = _tag(source, self.order)
        if kind not in _TYPES:
            raise Broken(f"holds {self.name} with values of type {kind}, no numbers")
        dtype = np.dtype(self.order + _TYPES[kind])
        if min(self.shape) < 0 or math.prod(self.shape) * dtype.itemsize != size:
            raise Broken(f"announces {size} bytes for {self.name} of shape {self.shape} and type {dtype.name}")
        values = content if content is not None else _exactly(source, size)
        if isinstance(source, _Unpacked) and (left := len(read_at_most(cast(BinaryIO, source), 8))) > 7:
            raise Broken(f"holds {left} bytes after the values of {self.name}")
        array = np.frombuffer(values, dtype).reshape(self.shape, order="F")
        return array if dtype.isnative else array.byteswap().view(dtype.newbyteorder("="))


def _tag(source: _Source, order: str) -> tuple[int, int, bytearray | None]:
    """The type and the number of bytes of an element; and its content if it is small enough to stand in the tag."""
    words = _exactly(source, 8)
    kind, size = struct.unpack(f"{order}II", words)
    if kind >> 16:  # a small one: the number of bytes is in the upper half
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise Broken(f"announces {size} bytes in an element of 4")
        return kind, size, words[4 : 4 + size]
    return kind, size, None


def _part(source: _Source, order: str) -> bytearray:
    """The content of an element of a matrix, which is short."""
    _, size, content = _tag(source, order)
    if content is None:
        if size > _LONGEST:
            raise Broken(f"announces {size} bytes for a name or sizes, more than {_LONGEST}")
        content = _exactly(source, size + -size % 8)[:size]
    return content
