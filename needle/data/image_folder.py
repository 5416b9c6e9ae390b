"""Folders of pictures by class, decoded as they are taken."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import Dataset, Transform, check_index, transform_image
from needle.data.images import SUFFIXES, read_image
from needle.files import Path, path_name

__all__ = ["ImageFolderDataset"]


class ImageFolderDataset(Dataset):
    """Pictures by class, `folder`/cat/*.jpg, `folder`/dog/*.png …: float32 images (C, H, W) in [0, 1] and int64 labels.

    Making one lists the folder; a picture is decoded by `read_image` whenever it is taken, so a `DataLoader` should
    have `prefetch`. With `size`, (H, W) or the side, pictures are scaled and cut to it; without, those of a batch must
    be of one size after the transforms. `channels` is 3 for RGB or 1 for gray. The transforms receive an image as
    (H, W, C).

    The classes are the folders in `folder`, in the order of their names; or `classes`, as of the training set, some of
    which a test set may lack. A picture is what ends in .png, .jpg, .jpeg, .bmp, .gif, .webp, .tif, .tiff, .ppm, .pgm
    or .pbm, in the folder of a class or below, in the order of the paths. Other files are passed over, and so are names
    that begin with a dot.

    Attributes: `classes`, their names; `paths`, of all pictures; `labels` (N,), their classes.

    Raises OSError if a folder cannot be read, ValueError if there is no class, a class without pictures, or one that is
    not in `classes`; and errors of `read_image`, with the path, when a picture is taken.
    """

    def __init__(
        self,
        folder: Path,
        size: int | Sequence[int] | None = None,
        channels: int = 3,
        *,
        classes: Sequence[str] | None = None,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        super().__init__(transforms)
        op = type(self).__name__
        self.size = None if size is None else check.sizes(op, "size", size, 2, least=1)
        self.channels: int = check.one_of(op, "channels", channels, (1, 3))
        root = path_name(op, "folder", folder)
        found = _folders(op, root)
        self.classes = tuple(found if classes is None else classes)
        if others := [name for name in found if name not in self.classes]:
            raise ValueError(
                f"{op}: folder must have no class but {', '.join(self.classes):.200}, but {root} has {others[0]}"
            )
        if not found:
            raise ValueError(f"{op}: folder must have a folder of pictures for each class, but {root} has none")
        pictures = {name: _pictures(op, os.path.join(root, name)) for name in self.classes if name in found}
        for name, paths in pictures.items():
            if not paths:
                raise ValueError(
                    f"{op}: a class must have at least one picture ({' '.join(SUFFIXES)}), "
                    f"but {os.path.join(root, name)} has none"
                )
        self.paths = tuple(path for paths in pictures.values() for path in paths)
        counts = [len(pictures.get(name, ())) for name in self.classes]
        self.labels = np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        check_index(type(self).__name__, index)
        chosen = np.arange(len(self))[index]
        if chosen.ndim:
            return self.take(chosen)
        image = read_image(self.paths[chosen], self.size, self.channels)
        return self.apply_transforms(image), self.labels[chosen]

    def apply_transforms(self, x: HostArray) -> HostArray:
        """Apply every transform to an image: (C, H, W) -> (C, H, W). Raises ValueError if one returns no image."""
        return transform_image(type(self).__name__, super().apply_transforms, x) if self.transforms else x

    def take(self, indices: Iterable[int]) -> tuple[HostArray, ...]:
        """The items at B `indices`: images (B, C, H, W) and labels (B,)."""
        chosen = np.asarray(indices)
        images = [self[int(index)][0] for index in chosen]
        for image, index in zip(images, chosen, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"{type(self).__name__}: images must have one size, or a size must be given to scale them to, but "
                    f"{self.paths[chosen[0]]} is {images[0].shape} and {self.paths[index]} {image.shape}"
                )
        return np.stack(images), self.labels[chosen]


def _folders(op: str, folder: str) -> list[str]:
    """The names of the folders in a folder, sorted; without those that begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(op, folder, error) from error


def _pictures(op: str, folder: str) -> list[str]:
    """The paths of the pictures in a folder and below, sorted; links to folders below are not followed."""

    def fail(error: OSError) -> None:
        raise _unreadable(op, error.filename, error) from error

    paths = []
    for base, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [os.path.join(base, name) for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(paths)


def _unreadable(op: str, folder: str, error: OSError) -> OSError:
    return type(error)(f"{op}: folder must be one that can be read, but {folder}: {error.strerror}")
