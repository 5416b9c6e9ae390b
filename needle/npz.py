"""The `.npz` format, a ZIP archive of `.npy` members: read without pickles, copies or trust.

Formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and PKWARE's APPNOTE.TXT.
"""

from __future__ import annotations

import ast
import errno
import math
import os
import re
import struct
import zlib
from collections.abc import Collection
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from needle.backend import HostArray
from needle.files import Broken

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

__all__ = ["ERRORS", "TEXT_NAME", "native", "read_npz"]

TEXT_NAME = "needle.json"  # the member of a .npz with the text

_PIECE = 2**18  # bytes to read at a time
_LARGEST, _MOST_AXES = 2**63 - 1, 64  # as NumPy has them
_LONGEST_HEADER = 10_000  # bytes of a .npy's, as NumPy has it
_HIGHEST_RATIO = 1032  # of deflate: zlib's documentation
ERRORS = (EOFError, NotImplementedError, OSError, OverflowError, ValueError, struct.error, zlib.error)  # of zipfile
_DESCR = re.compile("[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")


def read_npz(file: BinaryIO, names: Collection[str] | None = None) -> tuple[dict[str, HostArray], bytearray | None]:
    """The arrays and the text, in the order in which they were written; with `names` these arrays alone, no text.

    Raises Broken if it is not a whole archive, holds what is not read, or lacks an array of `names`.
    """
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(file) as archive:
            return _read_members(archive, file, file.seek(0, os.SEEK_END), names)
    except Broken:
        raise
    except (BadZipFile, *ERRORS) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of the disk, not of a place before the file
            raise
        raise Broken(f"is not a complete ZIP archive: {error}") from error


def _read_members(
    archive: ZipFile, file: BinaryIO, size: int, names: Collection[str] | None
) -> tuple[dict[str, HostArray], bytearray | None]:
    members = archive.infolist()
    file.seek(size - 22 - len(archive.comment))
    end = file.read(12)
    if end[:4] != b"PK\5\6" or int.from_bytes(end[10:], "little") != min(len(members), 0xFFFF):
        raise Broken("is not a complete ZIP archive: members are missing, or bytes follow its end")
    _check_members(members, size)
    if names is not None:
        held = {info.filename.removesuffix(".npy"): info for info in members}
        if missing := [name for name in names if name not in held]:
            raise Broken(f"holds {', '.join(held) or 'nothing':.200}, without an array {missing[0]!r}")
        members = [held[name] for name in names]
    arrays: dict[str, HostArray] = {}
    text = None
    for info in members:
        with archive.open(info) as member:
            if info.filename == TEXT_NAME:
                text = bytearray(info.file_size)
                _fill(memoryview(text), member, info.filename)
            else:
                arrays[info.filename.removesuffix(".npy")] = _read_array(member, info)
    return arrays, text


def _check_members(members: list[ZipInfo], size: int) -> None:
    """Require members with one meaning, that lie apart, and that promise no more than their bytes can hold."""
    if len({info.filename for info in members}) < len(members):
        raise Broken("holds two members of one name")
    end = size
    for info in sorted(members, key=lambda info: -info.header_offset):
        name = info.filename
        if not name.endswith(".npy") and name != TEXT_NAME:
            raise Broken(f"holds {name!r}, which is no array; np.load reads it")
        if ".." in name.replace("\\", "/").split("/") or "\0" in info.orig_filename:
            raise Broken(f"holds {info.orig_filename!r}, a name that no array may have")
        if info.flag_bits & 1 or info.compress_type not in (0, 8):
            raise Broken(f"holds {name!r} encrypted, or compressed by another method than deflate")
        most = info.compress_size * (_HIGHEST_RATIO if info.compress_type else 1)
        if info.file_size > most or info.header_offset + info.compress_size > end:
            raise Broken(f"promises {info.file_size} bytes for {name!r}, more than it can hold")
        if name == TEXT_NAME and info.compress_type:  # a small file could hold a text that takes much memory
            raise Broken(f"holds {name} compressed, which needle does not do")
        end = info.header_offset


def _fill(room: memoryview, member: IO[bytes], name: str) -> None:
    """Read the rest of a member into `room`. zipfile compares the checksum at its end."""
    place = 0
    while piece := member.read(_PIECE):
        if place + len(piece) > len(room):
            break
        room[place : place + len(piece)] = piece
        place += len(piece)
    if piece or place < len(room):
        raise Broken(f"holds {name!r} with {'more' if piece else 'fewer'} bytes than its header says")


def _read_array(member: IO[bytes], info: ZipInfo) -> HostArray:
    """The array in a `.npy` member, in native byte order, and by rows or columns as it was written."""
    name = info.filename
    start = member.read(8)
    width = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4, b"\x93NUMPY\3\0": 4}.get(start)
    if width is None:
        raise Broken(f"holds {name!r}, which is no .npy of version 1 to 3")
    length = int.from_bytes(member.read(width), "little")
    if length > _LONGEST_HEADER:
        raise Broken(f"holds {name!r} with a header of {length} bytes, more than {_LONGEST_HEADER}")
    dtype, by_columns, shape = _parse(member.read(length), name)
    if 8 + width + length + math.prod(shape) * dtype.itemsize != info.file_size:
        raise Broken(f"holds {name!r} of {info.file_size} bytes, which do not fit {dtype} of shape {shape}")
    array = _room_for(name, dtype, shape, "F" if by_columns else "C")
    _fill((array.T if by_columns else array).reshape(-1).view(np.uint8).data, member, name)
    return native(name, array)


def _parse(header: bytes, name: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """dtype, whether the order is by columns, and the shape, of the header of a `.npy`."""
    try:
        if b"\\" in header:
            raise ValueError("it has a backslash")  # Python would warn of some
        form = ast.literal_eval(header.decode("latin-1"))
        descr, by_columns, shape = form["descr"], form["fortran_order"], form["shape"]
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:  # of the parser
        raise Broken(f"holds {name!r} with a header that is none: {error}") from error
    if not (isinstance(by_columns, bool) and _is_shape(shape)):
        raise Broken(f"holds {name!r} with a header that is none: {form}")
    if not (isinstance(descr, str) and _DESCR.fullmatch(descr)):
        raise Broken(f"holds {name!r} of type {descr!r}, but only bools and numbers of at most 64 bits are read")
    return np.dtype(descr), by_columns, tuple(shape)


def _is_shape(value: Any) -> bool:
    """Whether a value in a header is a sequence of sizes; short and small enough to be multiplied in no time."""
    return (
        isinstance(value, (list, tuple))
        and len(value) <= _MOST_AXES
        and all(type(size) is int and 0 <= size <= _LARGEST for size in value)
    )


def _room_for(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> HostArray:
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
