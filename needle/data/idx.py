"""IDX files, the format of MNIST and Fashion-MNIST: the reader, and datasets of images and labels.

The format is described at the foot of http://yann.lecun.com/exdb/mnist/: two zero bytes, a byte for the type of the
values, a byte for the number of dimensions, each dimension as a big-endian uint32, then the values, big-endian too.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from os import PathLike

import numpy as np

from needle.data.dataset import ImageDataset, NDArrayDataset, Transform
from needle.data.files import find_file

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_SOURCE = (
    "MNIST is at https://ossci-datasets.s3.amazonaws.com/mnist/, "
    "Fashion-MNIST at https://github.com/zalandoresearch/fashion-mnist"
)


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """The array in an IDX file, plain or gzipped (its first bytes tell, not its name), in native byte order.

    Raises FileNotFoundError where there is no such file, and ValueError where the file is no IDX file or is not of the
    length that its header tells.
    """
    with open(path, "rb") as file:
        content = file.read()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"read_idx: a gzipped file must be whole, but {path} is not: {error}") from error
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
    size, given = math.prod(shape) * dtype.itemsize, len(content) - start
    if given != size:
        raise ValueError(
            f"read_idx: data of shape {shape} and type {dtype.name} must have {size} bytes, but {path} has {given}"
        )
    try:
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:
        raise ValueError(f"read_idx: NumPy must be able to hold shape {shape} of {path}, but: {error}") from error


def idx_files(folder: str | PathLike[str], train: bool) -> tuple[str, str]:
    """The paths of the images and of the labels in a folder of the four standard files, such as MNIST's.

    They are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, for the test set `t10k-…`; `.gz` may follow, and
    the spelling `train-images.idx3-ubyte` is known as well.

    Raises FileNotFoundError.
    """
    part = "train" if train else "t10k"
    return _find(folder, f"{part}-images", "idx3-ubyte"), _find(folder, f"{part}-labels", "idx1-ubyte")


class MNISTDataset(NDArrayDataset):
    """Images (H, W, 1) of float32 in 0..1 and their uint8 labels, from two IDX files; the transforms see the image.

    Raises FileNotFoundError where a file is missing, and ValueError where one does not hold what it should.
    """

    def __init__(
        self,
        image_filename: str | PathLike[str],
        label_filename: str | PathLike[str],
        transforms: Sequence[Transform] | None = None,
    ):
        paths = (os.path.split(path) for path in (image_filename, label_filename))
        found = [find_file("MNISTDataset", folder, [name], _SOURCE) for folder, name in paths]
        images, labels = _read_pair("MNISTDataset", *found)
        super().__init__(images[..., None], labels, transforms=transforms)


class IDXDataset(ImageDataset):
    """Images (1, H, W) of float32 in 0..1 and their uint8 labels, from a folder that `idx_files` reads."""

    def __init__(
        self, folder: str | PathLike[str], train: bool = True, transforms: Sequence[Transform] | None = None
    ):
        images, labels = _read_pair("IDXDataset", *idx_files(folder, train))
        super().__init__(images[:, None], labels, transforms=transforms)


def _find(folder: str | PathLike[str], stem: str, kind: str) -> str:
    """The path of the file in `folder` that is called `stem`-`kind` in one of the known spellings."""
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    return find_file("idx_files", folder, names, _SOURCE)


def _read_pair(
    op: str, image_path: str | PathLike[str], label_path: str | PathLike[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) as float32 in 0..1 and labels (N,) as uint8, from two IDX files of bytes."""
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
