"""The images that scripts train on: sets by name, or a folder of pictures by class; checked, split and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import image_folder
from needle.data import (
    BatchTransform,
    CIFAR10Dataset,
    Dataset,
    DigitsDataset,
    IDXDataset,
    ImageDataset,
    RandomCrop,
    RandomFlipHorizontal,
    Subset,
    random_split,
)
from run_folder import checksum

__all__ = ["NAMES", "SHAPES", "Splits", "load"]

Part = tuple[np.ndarray, np.ndarray]  # images (N, C, H, W) in [0, 1] and labels (N,), or masks (N, H, W)

CLASSES = {
    "fashion-mnist": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
ONE_WAY = ("digits", "mnist")  # sets whose images mean something else, or nothing, in a mirror


@dataclass(frozen=True)
class Splits:
    """Images for training, for comparing epochs and for the test; `validation` is None if none are held out for it.

    `shape` is that of an image: channels, height and width. `checksum` tells these images from others. `transforms`
    are those of batches of training images.
    """

    name: str
    train: Dataset
    validation: Dataset | None
    test: Dataset
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    checksum: str
    transforms: tuple[BatchTransform, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """The number of images in each set that is there."""
        sets = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(images) for name, images in sets.items() if images is not None}

    @property
    def labels(self) -> np.ndarray:
        """The classes of the training images, by number."""
        return _labels(self.train)

    def __str__(self) -> str:
        counts = [f"{count} {name.replace('train', 'training')}" for name, count in self.counts.items()]
        channels, height, width = self.shape
        size = f"{height}x{width}" if channels == 1 else f"{channels}x{height}x{width}"
        return f"{self.name}: {', '.join(counts[:-1])} and {counts[-1]} images of {size}"


def _labels(part: Any) -> np.ndarray:
    """The labels of a set, or of a part of one."""
    labels: np.ndarray = _labels(part.dataset)[part.indices] if isinstance(part, Subset) else part.arrays[1]
    return labels


# ---- sets by name ----------------------------------------------------------------------------------------------------


def _read_digits(folder: Path) -> tuple[Part, Part]:
    return DigitsDataset(train=True).arrays, DigitsDataset(train=False).arrays


def _read_idx(folder: Path) -> tuple[Part, Part]:
    return IDXDataset(folder, train=True).arrays, IDXDataset(folder, train=False).arrays


def _read_cifar10(folder: Path) -> tuple[Part, Part]:
    return CIFAR10Dataset(folder, train=True).arrays, CIFAR10Dataset(folder, train=False).arrays


SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
READERS: dict[str, Callable[[Path], tuple[Part, Part]]] = {
    "digits": _read_digits,
    "mnist": _read_idx,
    "fashion-mnist": _read_idx,
    "cifar10": _read_cifar10,
}
NAMES = tuple(READERS)


def load(
    name: str,
    folder: Path | None = None,
    *,
    size: int | None = None,
    validation: float = 0.0,
    augment: bool = False,
    seed: int = 0,
    title: str | None = None,
) -> Splits:
    """The images of a set by its name, with its files in `folder`, or of a folder of pictures by that path.

    `validation` is the part of the training set that is held out, chosen by `seed`. Where a folder has no pictures for
    the test, a fifth of all is held out for that. `size` scales the pictures of a folder. `augment` shifts each
    training image at random by up to an eighth of its side, and mirrors half of them where that keeps their meaning.

    Raises OSError or ValueError if files are missing or damaged, if sizes differ, if a test image is of a class that no
    training image has, or if there are too few images to hold some out.
    """
    held: Dataset | None = None
    if name in READERS:
        parts = READERS[name](folder or Path())
        check_sizes(*parts, folder)
        (images, labels), tested, classes = number_classes(*parts, CLASSES.get(name))
        train, test = ImageDataset(images, labels), ImageDataset(*tested)
        number = checksum(images, labels, *tested)
    else:
        sets = image_folder.read_folder(Path(name), size)
        train, held, test, classes = sets
        images = train.arrays[0]
        number = checksum(*(array for part in (train, held, test) if part is not None for array in part.arrays))
        if test is None:
            if len(train) < 5:
                raise ValueError(
                    f"{name} must hold at least 5 pictures, since a fifth is held out for the test, but holds "
                    f"{len(train)}; or it must hold folders train and test"
                )
            train, test = random_split(train, [0.8, 0.2], seed=seed)
    if validation:
        if held is not None:
            raise ValueError(f"--validation must not be given, since {name} has a folder val, but got {validation}")
        train, held = random_split(train, [1 - validation, validation], seed=seed)
    _, channels, height, width = images.shape
    chosen = transforms(name, images) if augment else ()
    return Splits(title or Path(name).name, train, held, test, classes, (channels, height, width), number, chosen)


def check_sizes(train: Part, test: Part, folder: Path | None) -> None:
    """Raise ValueError if training and test images differ in size."""
    sizes = ["x".join(map(str, images.shape[2:])) for images, _ in (train, test)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"training and test images must agree in size, but those in {folder} are {sizes[0]} and {sizes[1]}"
        )


def number_classes(train: Part, test: Part, names: tuple[str, ...] | None) -> tuple[Part, Part, tuple[str, ...]]:
    """Labels as 0, 1, 2 … for the classes that occur in the training set, and the names of these."""
    occur = np.unique(train[1])
    for label in np.setdiff1d(test[1], occur)[:1]:
        raise ValueError(
            f"test labels must be among the {len(occur)} classes of the training images, but one is {label}"
        )
    titles = tuple(names[label] if names and label < len(names) else str(label) for label in occur.tolist())
    if np.array_equal(occur, np.arange(len(occur))):
        return train, test, titles
    numbered = [(images, np.searchsorted(occur, labels).astype(labels.dtype)) for images, labels in (train, test)]
    return numbered[0], numbered[1], titles


def transforms(name: str, images: np.ndarray) -> tuple[BatchTransform, ...]:
    """The random transforms of the training images of a set."""
    shift = RandomCrop(max(1, min(images.shape[2:]) // 8))
    return (shift,) if name in ONE_WAY else (RandomFlipHorizontal(), shift)
