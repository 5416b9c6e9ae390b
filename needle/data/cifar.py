"""CIFAR-10 and CIFAR-100: 60,000 color photographs of 32x32 pixels each, by A. Krizhevsky, V. Nair and G. Hinton.

Reads both formats of https://www.cs.toronto.edu/~kriz/cifar.html, "python" and "binary". The python format is a pickle,
which is not unpickled, but read: see `cifar_pickle.py`.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.binary import map_array
from needle.data.cifar_pickle import read_pickle, shown
from needle.data.dataset import ImageDataset, Transform
from needle.data.files import find_file
from needle.data.pixels import PixelDataset
from needle.files import Path, open_file

__all__ = ["CIFAR10Dataset", "CIFAR100Dataset"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
# Bytes of a file. 10,000 images take 31 MB, or 100 MB in the oldest protocol of pickles; CIFAR-100's have up to 50,000.
_LARGEST = {"CIFAR10Dataset": 2**27, "CIFAR100Dataset": 2**29}
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_SOURCE = "is at https://www.cs.toronto.edu/~kriz/cifar.html"


class CIFAR10Dataset(ImageDataset):
    """CIFAR-10: float32 images (3, 32, 32) in [0, 1] and uint8 labels 0 to 9, in file order.

    `base_folder` contains `data_batch_1` to `data_batch_5` (for `train`) and `test_batch`, with the suffix `.bin` in
    the binary format; or it contains the unpacked folder `cifar-10-batches-py` or `cifar-10-batches-bin`. The five
    files have the same number of images, 10,000 in the original. `p` is part of the course's signature and has no
    effect: each transform has its own probability.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, ValueError if a file is not in either
    format or has fewer images than another one, and TypeError if `p` is not a number (transforms come after it).
    """

    def __init__(
        self,
        base_folder: Path,
        train: bool,
        p: float = 0.5,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        if not isinstance(p, numbers.Real):
            raise TypeError(f"CIFAR10Dataset: p must be a number (transforms follow it), but got {type(p).__name__}")
        check.number("CIFAR10Dataset", "p", p, least=0, most=1)
        stems = _TRAIN if check.instance("CIFAR10Dataset", "train", train, bool) else _TEST
        paths = [_find("CIFAR10Dataset", base_folder, stem, "10") for stem in stems]
        parts = [_read("CIFAR10Dataset", path, "labels", (0, 1), 10) for path in paths]
        counts = [len(labels) for _, labels in parts]
        if len(set(counts)) > 1:
            found = ", ".join(f"{path} {count}" for path, count in zip(paths, counts, strict=True))
            raise ValueError(f"CIFAR10Dataset: all files must hold the same number of images, but found {found}")
        pixels = np.concatenate([pixels for pixels, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        images = np.divide(pixels, 255, dtype=np.float32).reshape(-1, *_SHAPE)
        super().__init__(images, labels, transforms=transforms)

    @property
    def X(self) -> HostArray:
        """All images (N, 3, 32, 32), before any transform."""
        return self.arrays[0]

    @property
    def y(self) -> HostArray:
        """All labels (N,)."""
        return self.arrays[1]


class CIFAR100Dataset(PixelDataset):
    """CIFAR-100: float32 images (3, 32, 32) in [0, 1] and uint8 labels, in file order.

    The labels are the 100 "fine" classes (apple to worm, by the alphabet) or the 20 "coarse" ones. `base_folder`
    contains `train` and `test`, or with the suffix `.bin` those of the binary format; or the unpacked folder
    `cifar-100-python` or `cifar-100-binary`. Files of the binary format are mapped; a pickle is read, as bytes.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError if it is not in either
    format, or `labels` is neither.
    """

    def __init__(
        self,
        base_folder: Path,
        train: bool,
        labels: str = "fine",
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        op = "CIFAR100Dataset"
        stem = "train" if check.instance(op, "train", train, bool) else "test"
        column, classes = {"coarse": (0, 20), "fine": (1, 100)}[check.one_of(op, "labels", labels, ("fine", "coarse"))]
        path = _find(op, base_folder, stem, "100")
        pixels, indices = _read(op, path, f"{labels}_labels", (column, 2), classes)
        super().__init__(pixels.reshape(-1, *_SHAPE), indices, transforms=transforms)


def _find(op: str, folder: Path, stem: str, number: str) -> str:
    """The path of one file of a dataset, in either format."""
    python, binary = ("batches-py", "batches-bin") if number == "10" else ("python", "binary")
    names = [stem, f"{stem}.bin", f"cifar-{number}-{python}/{stem}", f"cifar-{number}-{binary}/{stem}.bin"]
    return find_file(op, folder, names, f"CIFAR-{number} {_SOURCE}")


def _read(op: str, path: str, key: str, column: tuple[int, int], classes: int) -> tuple[HostArray, HostArray]:
    """Pixels (n, 3072) and labels (n,) of one file, both uint8; pixels in the binary format are mapped.

    `key` is the name of the labels in a pickle, and `column` their place in a binary file, and the number of labels.
    """
    is_binary = path.endswith(".bin")
    with open_file(op, path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST[op]:
            raise ValueError(f"{op}: a file must have at most {_LARGEST[op]} bytes, but {path} has {size}")
        content = b"" if is_binary else file.read(size)
    pixels, labels = _read_binary(op, path, size, *column) if is_binary else read_pickle(op, path, content, key)
    if not len(pixels):
        raise ValueError(f"{op}: a file must hold at least one image, but {path} holds none")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise ValueError(
                f"{op}: labels must be integers in [0, {classes - 1}], "
                f"but label {position} of {path} is {shown(label)}"
            )
    return pixels, np.array(labels, np.uint8)


def _read_binary(op: str, path: str, size: int, column: int, columns: int) -> tuple[HostArray, list[Any]]:
    """Pixels and labels of a binary file: records of label bytes, of which one column counts, and 3072 pixel bytes."""
    width = columns + _PIXELS
    if size % width:
        raise ValueError(
            f"{op}: a binary file must consist of records of {width} bytes, "
            f"but {path} has {size} bytes, {size % width} over"
        )
    records = map_array(op, path, np.uint8, (size // width, width))
    return records[:, columns:], records[:, column].tolist()
