"""Transforms of an image, an array (H, W, C), with its masks; random ones draw from NumPy's global generator.

Every transform is called with an image, or with an image and its masks (H, W) or (H, W, C): `crop(image, mask)`. Then
one draw moves them all, and it returns as many. The values of a mask are kept, or are 0 where a crop reaches beyond it.

An image whose first axis can only be channels, such as (3, 32, 32), is refused: it would be flipped upside down.
`ImageDataset` stores images (C, H, W) and hands them to its transforms as (H, W, C); so does `SegmentationDataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import Transform, check_transforms, is_channels_first

__all__ = ["Compose", "Normalize", "RandomCrop", "RandomFlipHorizontal"]


class Compose:
    """Several transforms in order, as one.

    Raises TypeError if `transforms` is not a sequence of callables.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = check_transforms("Compose", transforms)

    def __call__(self, image: HostArray, *masks: HostArray) -> Any:
        arrays: tuple[Any, ...] = (image, *masks)
        for transform in self.transforms:
            result = transform(*arrays)
            arrays = result if isinstance(result, tuple) else (result,)
        return _as_given(arrays)


class Normalize:
    """Subtract `mean` from an image and divide it by `std`, numbers or one per channel: (H, W, C) -> (H, W, C).

    The dtype is kept. Masks are returned as they are. Raises ValueError if a `std` is not greater than 0, if the image
    is not (H, W, C) or has another number of channels, and TypeError if it is not of floats.

    >>> Normalize(mean=[0.5], std=[0.25])(np.ones((1, 2, 1))).ravel()
    array([2., 2.])
    """

    def __init__(self, mean: float | Sequence[float] | HostArray, std: float | Sequence[float] | HostArray) -> None:
        self.mean, self.std = _per_channel("mean", mean), _per_channel("std", std)
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std must be greater than 0, but got {std}")

    def __call__(self, image: HostArray, *masks: HostArray) -> Any:
        shape = _check_image("Normalize", image, *masks)
        if image.dtype.kind != "f":
            raise TypeError(f"Normalize: image must be of floats, but got {image.dtype}; divide bytes by 255 first")
        for value in (self.mean, self.std):
            if value.ndim and len(value) != shape[2]:
                raise ValueError(
                    f"Normalize: mean and std must be numbers or have one for each channel of image {shape}, "
                    f"but got {len(value)}"
                )
        return _as_given(((image - self.mean.astype(image.dtype)) / self.std.astype(image.dtype), *masks))


class RandomFlipHorizontal:
    """Mirror an image left to right with probability `p`: (H, W, C) -> (H, W, C), a view, in the same dtype.

    Draws one `np.random.rand()` per image. Raises ValueError if `p` is not in [0, 1], or if the image is not (H, W, C).
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "p":
            value = check.number("RandomFlipHorizontal", "p", value, least=0, most=1)
        super().__setattr__(name, value)

    def __call__(self, image: HostArray, *masks: HostArray) -> Any:
        _check_image("RandomFlipHorizontal", image, *masks)
        is_flipped = np.random.rand() < self.p
        return _as_given(tuple(array[:, ::-1] if is_flipped else array for array in (image, *masks)))


class RandomCrop:
    """Shift an image by up to `padding` pixels along H and W and fill with zeros: (H, W, C) -> (H, W, C), same dtype.

    torchvision's `RandomCrop(32, padding=4)` of images 32 x 32 is `RandomCrop(4)` here: there is no size.
    Draws one `np.random.randint(low=-padding, high=padding + 1, size=2)` per image: the shift along H, then along W.
    Raises ValueError if `padding` is negative, or if the image is not (H, W, C).
    """

    def __init__(self, padding: int = 3) -> None:
        self.padding = padding

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "padding":
            value = check.integer("RandomCrop", "padding", value, least=0)
        super().__setattr__(name, value)

    def __call__(self, image: HostArray, *masks: HostArray) -> Any:
        height, width, _ = _check_image("RandomCrop", image, *masks)
        top, left = self.padding + np.random.randint(low=-self.padding, high=self.padding + 1, size=2)

        def crop(array: HostArray) -> HostArray:
            shape = (height + 2 * self.padding, width + 2 * self.padding, *array.shape[2:])
            padded = np.zeros_like(array, shape=shape)  # in the memory order of the image
            padded[self.padding : self.padding + height, self.padding : self.padding + width] = array
            return padded[top : top + height, left : left + width]

        return _as_given(tuple(map(crop, (image, *masks))))


def _as_given(arrays: tuple[Any, ...]) -> Any:
    """An image alone, or the tuple of an image and its masks."""
    return arrays if len(arrays) > 1 else arrays[0]


def _check_image(op: str, image: HostArray, *masks: HostArray) -> tuple[int, ...]:
    """Check that an image has 3 axes with the channels last, and masks of its size; return its shape (H, W, C)."""
    for array in (image, *masks):
        check.instance(op, "an image and its masks", array, np.ndarray)
    shape: tuple[int, ...] = image.shape
    if len(shape) != 3:
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}")
    if is_channels_first(shape):
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}, C x H x W; use ImageDataset")
    for mask in masks:
        if mask.shape[:2] != shape[:2]:
            raise ValueError(f"{op}: masks must have the size of the image {shape}, but got shape {mask.shape}")
    return shape


def _per_channel(name: str, value: Any) -> HostArray:
    """A number, or one number per channel."""
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"Normalize: {name} must be a number or one per channel, but got {value!r:.100}")
    return array
