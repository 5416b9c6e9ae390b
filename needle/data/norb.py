"""Small NORB: pairs of gray images of 50 toys, by F. J. Huang and Y. LeCun; and the format of its matrices.

Format, from https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/: a magic number for the type and the number of dimensions,
then at least three dimensions, all little-endian int32, then the values, also little-endian. A matrix of fewer than
three dimensions has ones for the others. The files end in `.mat`, but are none of MATLAB's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.binary import read_array
from needle.data.dataset import Transform
from needle.data.files import find_file
from needle.data.pixels import PixelDataset, check_pixels, class_indices
from needle.files import Path

__all__ = ["NORBDataset", "read_norb"]

_DTYPES = {0x51: "<f4", 0x53: "<f8", 0x54: "<i4", 0x55: "<u1", 0x56: "<i2"}  # first byte of the magic number
_MAGIC = b"\x4c\x3d\x1e"  # its other bytes
_SOURCE = "small NORB is at https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"


def read_norb(path: Path) -> HostArray:
    """Read a matrix in the format of NORB, plain or gzipped: an array of the header's shape, in native byte order.

    The dtype is uint8, int16, int32, float32 or float64. No more is read, or unpacked, than the header announces.

    Raises OSError (FileNotFoundError, PermissionError …) if the path is not a regular file that can be read, and
    ValueError if it is not such a matrix, is truncated, or is longer than its header says.
    """
    return read_array("read_norb", path, _header)


def _header(op: str, path: Path, file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(8)
    if len(magic) < 8 or magic[0] not in _DTYPES or magic[1:4] != _MAGIC:
        raise ValueError(
            f"{op}: the magic number must be a type in {', '.join(f'{code:02x}' for code in _DTYPES)} and "
            f"{_MAGIC.hex(' ')}, and the number of dimensions must follow, "
            f"but {path} begins with {magic.hex(' ') or 'nothing'}"
        )
    (ndim,) = struct.unpack("<I", magic[4:])
    words = max(3, ndim)
    sizes = file.read(4 * min(words, 65))  # NumPy holds 64 axes
    if len(sizes) < 4 * words:
        raise ValueError(
            f"{op}: a header of {ndim} dimensions must have {8 + 4 * words} bytes, but {path} has {8 + len(sizes)}"
        )
    shape = struct.unpack(f"<{words}I", sizes)
    if any(size != 1 for size in shape[ndim:]):
        raise ValueError(f"{op}: sizes after {ndim} dimensions must be 1, but {path} has {shape[ndim:]}")
    return np.dtype(_DTYPES[magic[0]]), shape[:ndim]


class NORBDataset(PixelDataset):
    """Small NORB: float32 images (2, 96, 96) in [0, 1], of the left and the right camera, and uint8 labels 0 to 4.

    `folder` contains the files `smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat` and `…-cat.mat`, or
    `smallnorb-5x01235x9x18x6x2x96x96-testing-…`, also with `.gz` at the end. `classes` are the names of the classes.
    Unpacked images are mapped, and taken as they are needed. Instance, elevation, azimuth and lighting of each are in
    `…-info.mat`, int32 (N, 4), for `read_norb`.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError if it is broken, or
    holds another matrix or a label that is no class.
    """

    classes = ("animal", "human", "airplane", "truck", "car")

    def __init__(self, folder: Path, train: bool = True, transforms: Sequence[Transform] | None = None) -> None:
        op = "NORBDataset"
        people, part = ("46789", "training") if check.instance(op, "train", train, bool) else ("01235", "testing")
        stem = f"smallnorb-5x{people}x9x18x6x2x96x96-{part}"
        paths = [
            find_file(op, folder, [f"{stem}-{kind}.mat{end}" for end in ("", ".gz")], _SOURCE)
            for kind in ("dat", "cat")
        ]
        pixels = check_pixels(op, paths[0], read_array(op, paths[0], _header, is_mapped=True), "N x 2 x H x W")
        labels = class_indices(op, paths[1], read_array(op, paths[1], _header), (paths[0], pixels), len(self.classes))
        super().__init__(pixels, labels, transforms=transforms)
