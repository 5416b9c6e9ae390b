"""A folder of pictures by class as datasets: FOLDER/cat/*.jpg, FOLDER/dog/*.png … Needs Pillow (.[apps]).

Or the folder is divided: FOLDER/train/cat/…, and FOLDER/val/cat/… and FOLDER/test/cat/…, one of them or both.

Pictures are read at once, so that a broken one is named before a run begins, and held as float32. What becomes of
palettes, 16 bits, animations and other pictures says `needle.data.read_image`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from needle.data import ImageDataset, ImageFolderDataset, read_image

__all__ = ["ImageSets", "read_folder"]

LARGEST = 2**32  # bytes of a set; 7,000 RGB pictures of 224x224 take this
SETS = ("train", "val", "test")
OP = "image_folder"
Size = int | tuple[int, int]
Array = np.ndarray


class ImageSets(NamedTuple):
    """The sets of a folder: images (N, C, H, W) in [0, 1] and int64 labels; and the names of the classes, in order.

    `val` and `test` are None where the folder has none.
    """

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None
    classes: tuple[str, ...]


def read_folder(folder: Path | str, size: Size | None = None, channels: int | None = None) -> ImageSets:
    """Read all pictures of a folder, in the order of `ImageFolderDataset`.

    All pictures must have one size, or are scaled to `size` as by `read_image`. `channels` is 1 for gray or 3 for RGB;
    by default it is 1 if all pictures are gray.

    Raises OSError if a folder or a file cannot be read, and ValueError, with its name, if a picture is broken or has
    too many pixels, if pictures differ in size, if there are fewer than two classes, a class without pictures or
    another class in another set, and if a set takes more memory than 4 GiB.
    """
    folder = Path(folder)
    names = ImageFolderDataset(folder).classes
    is_divided = "train" in names and {*names} <= {*SETS}
    roots = {name: folder / name for name in SETS if name in names} if is_divided else {"train": folder}
    train = ImageFolderDataset(roots["train"])
    if len(train.classes) < 2:
        raise ValueError(
            f"{OP}: a set must have at least two classes, a folder of pictures each, but {roots['train']} has one, "
            f"{train.classes[0]}"
        )
    listed = {name: ImageFolderDataset(root, classes=train.classes) for name, root in roots.items()}
    images = {name: _read(roots[name], files.paths, train.paths[0], size, channels) for name, files in listed.items()}
    count = max(array.shape[1] for array in images.values())
    made = {
        name: ImageDataset(array if array.shape[1] == count else np.repeat(array, count, 1), listed[name].labels)
        for name, array in images.items()
    }
    return ImageSets(made["train"], made.get("val"), made.get("test"), train.classes)


def _read(root: Path, paths: tuple[str, ...], first: str, size: Size | None, channels: int | None) -> Array:
    """All pictures of a set (N, C, H, W): gray ones as RGB if one is colored. They must have the size of `first`."""
    expected = read_image(first, size, channels).shape
    images = np.empty((0, *expected), np.float32)
    for number, path in enumerate(paths):
        image = read_image(path, size, channels)
        if image.shape[1:] != expected[1:]:
            (height, width), (first_height, first_width) = image.shape[1:], expected[1:]
            raise ValueError(
                f"{OP}: pictures must have one size, or a size must be given to scale them to, "
                f"but {first} is {first_height}x{first_width} and {path} {height}x{width} (height x width)"
            )
        if not number or len(image) > images.shape[1]:
            takes = 4 * len(paths) * math.prod(image.shape)
            if takes > LARGEST:
                raise ValueError(
                    f"{OP}: a set must take at most {LARGEST >> 20} MiB, but {root} holds {len(paths)} pictures of "
                    f"{'x'.join(map(str, image.shape))} and takes {takes >> 20}; a smaller size takes less"
                )
            before, images = images, np.empty((len(paths), *image.shape), np.float32)
            images[:number] = before[:number]
        images[number] = image
    return images
