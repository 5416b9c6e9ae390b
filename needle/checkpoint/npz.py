"""The `.npz` format, a ZIP archive of `.npy` members: written without pickles or copies.

Formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and PKWARE's APPNOTE.TXT.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from needle.backend import HostArray
from needle.checkpoint.arrays import Stored, host_array, little_endian
from needle.npz import TEXT_NAME

if TYPE_CHECKING:
    from zipfile import ZipFile

__all__ = ["write_npz"]

_BLOCK = 2**17  # elements that are brought into order at a time


def write_npz(file: str | BinaryIO, arrays: dict[str, Stored], text: str | None) -> None:
    """Write arrays and a text. The bytes depend on nothing else: the archive holds no time."""
    from zipfile import ZipFile  # imported when it is needed: the import takes five milliseconds

    with ZipFile(file, "w") as archive:
        for name, value in arrays.items():
            array = host_array(value)
            dtype = little_endian(array.dtype)
            header = BytesIO()
            by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
            form = {"descr": dtype.str, "fortran_order": by_columns, "shape": array.shape}
            np.lib.format.write_array_header_1_0(header, form)
            with _new_member(archive, f"{name}.npy", len(header.getvalue()) + array.nbytes) as member:
                member.write(header.getvalue())
                for block in _blocks(array.T if by_columns else array, dtype):
                    member.write(block)
        if text is not None:
            content = text.encode()
            with _new_member(archive, TEXT_NAME, len(content)) as member:
                member.write(content)


def _blocks(array: HostArray, dtype: np.dtype[Any]) -> Iterator[memoryview]:
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
        buffersize=_BLOCK,
    ):
        yield np.ascontiguousarray(piece).view(np.uint8).data


def _new_member(archive: ZipFile, name: str, size: int) -> IO[bytes]:
    from zipfile import ZipInfo

    info = ZipInfo(name)
    info.create_system, info.external_attr, info.file_size = 3, 0o644 << 16, size
    return archive.open(info, "w")
