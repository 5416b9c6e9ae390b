"""IDX files, the format of MNIST and Fashion-MNIST: the reader, and datasets of images and labels.

Format, from http://yann.lecun.com/exdb/mnist/: two zero bytes, one byte for the dtype, one byte for the number of
dimensions, each dimension as a big-endian uint32, then the values, also big-endian.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from typing import BinaryIO, cast

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import ImageDataset, NDArrayDataset, Transform
from needle.data.files import find_file
from needle.files import Path, open_file, path_name, read_at_most

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
    file name. No more is read, or unpacked, than the header announces.

    Raises OSError (FileNotFoundError, PermissionError …) if the path is not a regular file that can be read, and
    ValueError if it is not an IDX file, is truncated, or is longer than its header says.
    """
    with open_file("read_idx", path) as file:
        magic = file.read(2)
        file.seek(0)
        if magic != _GZIP_MAGIC:
            return _read_array(path, file, os.fstat(file.fileno()).st_size)

        import gzip  # imported when they are needed: the imports take two milliseconds
        import zlib

        try:
            with gzip.open(file) as unpacked:
                return _read_array(path, cast(BinaryIO, unpacked), None)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"read_idx: a gzipped file must be complete, but {path} is not: {error}") from error


def _read_array(path: Path, file: BinaryIO, length: int | None) -> HostArray:
    """The array in an IDX file of `length` bytes; None if the length is not known before the end."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"read_idx: the magic number must be 00 00, a type in {', '.join(f'{code:02x}' for code in _DTYPES)} and "
            f"the number of dimensions, but {path} begins with {magic.hex(' ') or 'nothing'}"
        )
    dtype, ndim = np.dtype(_DTYPES[magic[2]]), magic[3]
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(
            f"read_idx: a header of {ndim} dimensions must have {4 + 4 * ndim} bytes, but {path} has {4 + len(sizes)}"
        )
    shape = struct.unpack(f">{ndim}I", sizes)
    size = math.prod(shape) * dtype.itemsize
    available: int | str = size if length is None else length - 4 - 4 * ndim
    if available == size:
        content = read_at_most(file, size + 1)  # one more, to reach the end and its checksum
        available = len(content) if len(content) <= size else "more"
    if available != size:
        raise ValueError(
            f"read_idx: data of shape {shape} and type {dtype.name} must have {size} bytes, but {path} has {available}"
        )
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise ValueError(f"read_idx: NumPy must be able to hold shape {shape} of {path}, but: {error}") from error
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def idx_files(folder: Path, train: bool) -> tuple[str, str]:
    """The paths of the image file and the label file in a folder with the four standard files of MNIST.

    Names are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-…` for the test set; also with `.gz` at
    the end, and with a dot before `idx`.

    Raises FileNotFoundError if one of the two is missing, and TypeError if `train` is not a bool.
    """
    part = "train" if check.instance("idx_files", "train", train, bool) else "t10k"
    return _find(folder, f"{part}-images", "idx3-ubyte"), _find(folder, f"{part}-labels", "idx1-ubyte")


class MNISTDataset(NDArrayDataset):
    """Two IDX files of bytes: float32 images (H, W, 1) in [0, 1], channels last, and uint8 labels.

    The labels may be QMNIST's: int32 (N, 8), with the class in column 0. The transforms receive the image.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError if one is not an IDX
    file of the expected shape and dtype, if there is no image, or if images and labels differ in number.
    """

    def __init__(
        self,
        image_filename: Path,
        label_filename: Path,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        names = {"image_filename": image_filename, "label_filename": label_filename}
        paths = (os.path.split(path_name("MNISTDataset", name, path)) for name, path in names.items())
        files = [find_file("MNISTDataset", folder, [name], _SOURCE) for folder, name in paths]
        images, labels = _read_pair("MNISTDataset", *files)
        super().__init__(images[..., None], labels, transforms=transforms)


class IDXDataset(ImageDataset):
    """A folder with the four files of MNIST or Fashion-MNIST: float32 images (1, H, W) in [0, 1] and uint8 labels.

    `idx_files` lists the file names. QMNIST's labels and errors as in `MNISTDataset`.
    """

    def __init__(self, folder: Path, train: bool = True, transforms: Sequence[Transform] | None = None) -> None:
        images, labels = _read_pair("IDXDataset", *idx_files(folder, train))
        super().__init__(images[:, None], labels, transforms=transforms)


def _find(folder: Path, stem: str, kind: str) -> str:
    """The path of the file `stem`-`kind` in `folder`, in one of the known spellings."""
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    return find_file("idx_files", folder, names, _SOURCE)


def _read_pair(op: str, image_path: Path, label_path: Path) -> tuple[HostArray, HostArray]:
    """Two IDX files as float32 images (N, H, W) in [0, 1] and uint8 labels (N,)."""
    images, labels = read_idx(image_path), _classes(op, label_path, read_idx(label_path))
    for name, array, ndim, path in (("images", images, 3, image_path), ("labels", labels, 1, label_path)):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise ValueError(
                f"{op}: {name} must be uint8 of {ndim} dimensions, "
                f"but {path} holds {array.dtype} of {array.ndim}: shape {array.shape}"
            )
    if not images.size:
        raise ValueError(f"{op}: there must be at least one image and pixel, but {image_path} has shape {images.shape}")
    if len(images) != len(labels):
        raise ValueError(
            f"{op}: images and labels must agree in number, "
            f"but {image_path} holds {len(images)} and {label_path} {len(labels)}"
        )
    return np.divide(images, 255, dtype=np.float32), labels


def _classes(op: str, path: Path, labels: HostArray) -> HostArray:
    """The classes (N,) as uint8, if the labels are QMNIST's: int32 (N, 8), class, source, writer and so on."""
    if labels.dtype != np.int32 or labels.shape[1:] != (8,):
        return labels
    classes = labels[:, 0]
    for wrong in np.flatnonzero((classes < 0) | (classes > 255))[:1]:
        raise ValueError(f"{op}: classes must lie in [0, 255], but label {wrong} of {path} is {classes[wrong]}")
    return classes.astype(np.uint8)
