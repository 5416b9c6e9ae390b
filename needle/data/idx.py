"""IDX files, the format of MNIST and Fashion-MNIST: the reader, and datasets of images and labels.

Format, from http://yann.lecun.com/exdb/mnist/: two zero bytes, one byte for the dtype, one byte for the number of
dimensions, each dimension as a big-endian uint32, then the values, also big-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, BinaryIO

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.binary import read_array
from needle.data.dataset import ImageDataset, NDArrayDataset, Transform
from needle.data.files import find_file
from needle.data.pixels import PixelDataset, check_pixels, class_indices
from needle.files import Path, path_name

__all__ = ["EMNISTDataset", "IDXDataset", "MNISTDataset", "idx_files", "read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_EMNIST_CLASSES = {  # in the order of their numbers; lower case that looks like upper case is merged into it
    "balanced": tuple(digits + ascii_uppercase + "abdefghnqrt"),
    "byclass": tuple(digits + ascii_uppercase + ascii_lowercase),
    "bymerge": tuple(digits + ascii_uppercase + "abdefghnqrt"),
    "digits": tuple(digits),
    "letters": tuple(ascii_lowercase),
    "mnist": tuple(digits),
}
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
    return read_array("read_idx", path, _header)


def map_idx(path: Path) -> HostArray:
    """`read_idx`, but of a plain file the values are mapped: read when they are used, in the file's byte order."""
    return read_array("read_idx", path, _header, is_mapped=True)


def _header(op: str, path: Path, file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"{op}: the magic number must be 00 00, a type in {', '.join(f'{code:02x}' for code in _DTYPES)} and "
            f"the number of dimensions, but {path} begins with {magic.hex(' ') or 'nothing'}"
        )
    dtype, ndim = np.dtype(_DTYPES[magic[2]]), magic[3]
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(
            f"{op}: a header of {ndim} dimensions must have {4 + 4 * ndim} bytes, but {path} has {4 + len(sizes)}"
        )
    return dtype, struct.unpack(f">{ndim}I", sizes)


def idx_files(folder: Path, train: bool) -> tuple[str, str]:
    """The paths of the image file and the label file in a folder with the files of MNIST, or of QMNIST.

    Names are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-…` for the test set; also with `.gz` at
    the end, and with a dot before `idx`. QMNIST's are `qmnist-train-images-idx3-ubyte` and
    `qmnist-train-labels-idx2-int`, or `qmnist-test-…`.

    Raises FileNotFoundError if one of the two is missing, and TypeError if `train` is not a bool.
    """
    check.instance("idx_files", "train", train, bool)
    stems = ("train", "qmnist-train") if train else ("t10k", "qmnist-test")
    return (
        _find("idx_files", folder, [(f"{stem}-images", "idx3-ubyte") for stem in stems]),
        _find("idx_files", folder, [(f"{stems[0]}-labels", "idx1-ubyte"), (f"{stems[1]}-labels", "idx2-int")]),
    )


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
    """A folder with the files of MNIST or Fashion-MNIST: float32 images (1, H, W) in [0, 1] and uint8 labels.

    Or with those of Kuzushiji-MNIST, which have the same names, or of QMNIST. `idx_files` lists the names. QMNIST's
    labels and errors as in `MNISTDataset`.
    """

    def __init__(self, folder: Path, train: bool = True, transforms: Sequence[Transform] | None = None) -> None:
        images, labels = _read_pair("IDXDataset", *idx_files(folder, train))
        super().__init__(images[:, None], labels, transforms=transforms)


class EMNISTDataset(PixelDataset):
    """EMNIST, handwritten letters and digits: float32 images (1, 28, 28) in [0, 1], upright, and uint8 labels from 0.

    `folder` holds the files of a split as they are distributed, `emnist-letters-train-images-idx3-ubyte` (or `.gz`) and
    so on, or a folder `gzip` with them. The splits are "byclass" (62 classes), "bymerge" and "balanced" (47),
    "letters" (26; in the file they are 1 to 26), "digits" and "mnist" (10). `classes` are the characters.

    In the files the images are transposed; here they are not. Unpacked files are mapped, not read.

    Errors as in `IDXDataset`; besides, ValueError if there is no such split, or a label is none of its classes.

    Source: G. Cohen et al., "EMNIST: an extension of MNIST to handwritten letters" (2017).
    """

    def __init__(
        self,
        folder: Path,
        split: str = "balanced",
        train: bool = True,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        op, source = "EMNISTDataset", "EMNIST is at https://www.nist.gov/itl/products-and-services/emnist-dataset"
        self.classes = _EMNIST_CLASSES[check.one_of(op, "split", split, _EMNIST_CLASSES)]
        part = "train" if check.instance(op, "train", train, bool) else "test"
        stems = [f"{place}emnist-{split}-{part}" for place in ("", "gzip/")]
        files = [
            _find(op, folder, [(f"{stem}-{name}", kind) for stem in stems], source)
            for name, kind in (("images", "idx3-ubyte"), ("labels", "idx1-ubyte"))
        ]
        pixels = check_pixels(op, files[0], map_idx(files[0]), "N x H x W")
        first = 1 if split == "letters" else 0
        labels = class_indices(op, files[1], read_idx(files[1]), (files[0], pixels), len(self.classes), first)
        super().__init__(pixels.swapaxes(1, 2)[:, None], labels, transforms=transforms)


def _find(op: str, folder: Path, names: Sequence[tuple[str, str]], source: str = _SOURCE) -> str:
    """The path of the first file in `folder` with one of the names, each a stem and a kind, in one of the spellings."""
    return find_file(
        op, folder, [f"{stem}{mark}{kind}{end}" for stem, kind in names for mark in "-." for end in ("", ".gz")], source
    )


def _read_pair(op: str, image_path: Path, label_path: Path) -> tuple[HostArray, HostArray]:
    """Two IDX files as float32 images (N, H, W) in [0, 1] and uint8 labels (N,)."""
    pixels = check_pixels(op, image_path, read_idx(image_path), "N x H x W")
    labels = read_idx(label_path)
    if labels.dtype == np.int32 and labels.shape[1:] == (8,):  # QMNIST's: class, source, writer and so on
        labels = labels[:, 0]
    classes = class_indices(op, label_path, labels, (image_path, pixels), 256)
    return np.divide(pixels, 255, dtype=np.float32), classes
