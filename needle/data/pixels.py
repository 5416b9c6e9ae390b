"""Images as bytes, in memory or in a mapped file, that become floats when they are taken; and labels of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle.backend import HostArray
from needle.data.dataset import ImageDataset, Transform
from needle.files import Path

__all__ = ["PixelDataset"]


class PixelDataset(ImageDataset):
    """Images of bytes (N, C, H, W), or volumes (N, C, D, H, W), and labels: items are float32 in [0, 1].

    `pixels` stay as they are, in memory or in a file (`np.memmap`), and are divided by 255 when an item or a batch is
    taken. They are not copied. `labels` are class indices (N,), integers of any dtype; floats (N, K) of 0 and 1, for K
    classes of which an image may have several; or None, and an item is `(image,)`.

    Errors as in `ImageDataset`; besides, TypeError if the pixels are not uint8, or the labels of another dtype, and
    ValueError if the axes are others.

    >>> pixels = np.array([[[[0, 51], [102, 255]]]], np.uint8)
    >>> dataset = PixelDataset(pixels, [3])
    >>> dataset[0]
    (array([[[0. , 0.2],
            [0.4, 1. ]]], dtype=float32), np.int64(3))
    """

    def __init__(self, pixels: Any, labels: Any = None, *, transforms: Sequence[Transform] | None = None) -> None:
        super().__init__(pixels, *([] if labels is None else [labels]), transforms=transforms)
        if self.pixels.dtype != np.uint8:
            raise TypeError(f"PixelDataset: pixels must be uint8, but got {self.pixels.dtype}")
        if self.pixels.ndim not in (4, 5):
            raise ValueError(
                f"PixelDataset: pixels must be N x C x H x W, or N x C x D x H x W, but got shape {self.pixels.shape}"
            )
        for given in self.arrays[1:]:
            if (given.ndim, given.dtype.kind) not in ((1, "i"), (1, "u"), (2, "f")):
                raise TypeError(
                    f"PixelDataset: labels must be integers (N,), or floats (N, K) for several classes, "
                    f"but got {given.dtype} of shape {given.shape}"
                )

    @property
    def pixels(self) -> HostArray:
        """All images (N, C, H, W) or (N, C, D, H, W) as they are stored: uint8."""
        return self.arrays[0]

    @property
    def labels(self) -> HostArray | None:
        """All labels (N,) or (N, K); None without any."""
        return self.arrays[1] if len(self.arrays) > 1 else None

    def _field(self, position: int, index: Any) -> Any:
        field = super()._field(position, index)
        return field if position else np.divide(field, 255, dtype=np.float32, order="C")


def check_pixels(op: str, path: Path, pixels: HostArray, form: str) -> HostArray:
    """Bytes of a file, which must have axes such as "N x H x W x 3" and hold at least one image and pixel."""
    sizes = form.split(" x ")
    is_right = len(sizes) == pixels.ndim and pixels.dtype == np.uint8
    if not is_right or any(size.isdigit() and int(size) != n for size, n in zip(sizes, pixels.shape, strict=True)):
        raise ValueError(f"{op}: images must be uint8 {form}, but {path} holds {pixels.dtype} of shape {pixels.shape}")
    if not pixels.size:
        raise ValueError(f"{op}: there must be at least one image and pixel, but {path} has shape {pixels.shape}")
    return pixels


def class_indices(
    op: str, path: Path, labels: HostArray, images: tuple[Path, HostArray], classes: int, first: int = 0
) -> HostArray:
    """Labels (N,) or (N, 1) of a file, of which `first` is the first class, as class indices 0 to `classes` - 1 (N,).

    `images` are the images that they belong to, with their path. There are at most 256 classes: the result is uint8.

    Raises ValueError, with the first wrong label, unless they are such labels and as many as the images.
    """
    if labels.ndim not in (1, 2) or labels.shape[1:] not in ((), (1,)) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{op}: labels must be integers (N,) or (N, 1), but {path} holds {labels.dtype} of shape {labels.shape}"
        )
    if len(labels) != len(images[1]):
        raise ValueError(
            f"{op}: images and labels must agree in number, "
            f"but {images[0]} holds {len(images[1])} and {path} {len(labels)}"
        )
    flat, last = labels.reshape(-1), first + classes - 1
    for wrong in np.flatnonzero((flat < first) | (flat > last))[:1]:
        raise ValueError(f"{op}: labels must lie in [{first}, {last}], but label {wrong} of {path} is {flat[wrong]}")
    return (flat - first).astype(np.uint8)
