"""IDX files, the format of MNIST and Fashion-MNIST: the reader, and datasets of images and labels.

Format, from http://yann.lecun.com/exdb/mnist/: two zero bytes, one byte for the dtype, one byte for the number of
dimensions, each dimension as a big-endian uint32, then the values, also big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence

import numpy as np

from needle.backend import HostArray
from needle.data.dataset import ImageDataset, NDArrayDataset, Transform
from needle.data.files import Path, find_file

__all__ = ["IDXDataset", "MNISTDataset", "idx_files", "read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_SOURCE = (
    "MNIST is at https://ossci-datasets.s3.amazonaws.com/mnist/, "
    "Fashion-MNIST at https://github.com/zalandoresearch/fashion-mnist"
)


def read_idx(path: Path) -> HostArray:
    """Read an IDX file, plain or gzipped: an array of the header's shape, in native byte order.

    The dtype is uint8, int8, int16, int32, float32 or float64. Compression is recognized by the first bytes, not by the
    file name.

    Raises FileNotFoundError if the file does not exist, and ValueError if it is not an IDX file, is truncated, or is
    longer than its header says.
    """
    with open(path, "rb") as file:
        content = file.read()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"read_idx: a gzipped file must be complete, but {path} is not: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise ValueError(
            f"read_idx: the magic number must be 00 00, a type in {', '.join(f'{code:02x}' for code in _DTYPES)} and "
            f"the number of dimensions, but {path} begins with {content[:4].hex(' ') or 'nothing'}"
        )
    dtype, ndim = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(
            f"read_idx: a header of {ndim} dimensions must have {start} bytes, but {path} has {len(content)}"
        )
    shape = tuple(np.frombuffer(content, ">u4", count=ndim, offset=4).tolist())
    size, available = math.prod(shape) * dtype.itemsize, len(content) - start
    if available != size:
        raise ValueError(
            f"read_idx: data of shape {shape} and type {dtype.name} must have {size} bytes, but {path} has {available}"
        )
    try:
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:
        raise ValueError(f"read_idx: NumPy must be able to hold shape {shape} of {path}, but: {error}") from error


def idx_files(folder: Path, train: bool) -> tuple[str, str]:
    """The paths of the image file and the label file in a folder with the four standard files of MNIST.

    Names are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-…` for the test set; also with `.gz` at
    the end, and with a dot before `idx`.

    Raises FileNotFoundError if one of the two is missing.
    """
    part = "train" if train else "t10k"
    return _find(folder, f"{part}-images", "idx3-ubyte"), _find(folder, f"{part}-labels", "idx1-ubyte")


class MNISTDataset(NDArrayDataset):
    """Two IDX files of bytes: float32 images (H, W, 1) in [0, 1], channels last, and uint8 labels.

    The transforms receive the image. Raises FileNotFoundError if a file is missing, and ValueError if one is not an IDX
    file of the expected shape and dtype or if images and labels differ in number.
    """

    def __init__(
        self,
        image_filename: Path,
        label_filename: Path,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        paths = (os.path.split(path) for path in (image_filename, label_filename))
        files = [find_file("MNISTDataset", folder, [name], _SOURCE) for folder, name in paths]
        images, labels = _read_pair("MNISTDataset", *files)
        super().__init__(images[..., None], labels, transforms=transforms)


class IDXDataset(ImageDataset):
    """A folder with the four files of MNIST or Fashion-MNIST: float32 images (1, H, W) in [0, 1] and uint8 labels.

    `idx_files` lists the file names. Errors as in `MNISTDataset`.
    """

    def __init__(self, folder: Path, train: bool = True, transforms: Sequence[Transform] | None = None) -> None:
        images, labels = _read_pair("IDXDataset", *idx_files(folder, train))
        super().__init__(images[:, None], labels, transforms=transforms)


def _find(folder: Path, stem: str, kind: str) -> str:
    """The path of the file `stem`-`kind` in `folder`, in one of the known spellings."""
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    return find_file("idx_files", folder, names, _SOURCE)


def _read_pair(op: str, image_path: Path, label_path: Path) -> tuple[HostArray, HostArray]:
    """Two IDX files of bytes as float32 images (N, H, W) in [0, 1] and uint8 labels (N,)."""
    images, labels = read_idx(image_path), read_idx(label_path)
    for name, array, ndim, path in (("images", images, 3, image_path), ("labels", labels, 1, label_path)):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise ValueError(
                f"{op}: {name} must be uint8 of {ndim} dimensions, "
                f"but {path} holds {array.dtype} of {array.ndim}: shape {array.shape}"
            )
    if len(images) != len(labels):
        raise ValueError(
            f"{op}: images and labels must agree in number, "
            f"but {image_path} holds {len(images)} and {label_path} {len(labels)}"
        )
    return np.divide(images, 255, dtype=np.float32), labels
