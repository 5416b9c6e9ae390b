"""Transforms that move whole pixels: borders, cuts and mirrors. Dtypes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import ImageTransform, channels_of, per_channel, steps

__all__ = ["CenterCrop", "Pad", "RandomCrop", "RandomFlipHorizontal", "RandomFlipVertical"]

Fill = float | Sequence[float] | HostArray  # a number, or one per channel


class Pad(ImageTransform):
    """Add a border of `padding` pixels, one number or (rows, columns), on each side: (H, W, C) -> (H', W', C).

    It is filled with `fill`, a number or one per channel; that of a mask with 0.
    Raises ValueError if `padding` is negative, or if the images' dtype does not hold `fill`.
    """

    def __init__(self, padding: int | tuple[int, int], fill: Fill = 0) -> None:
        self.padding = check.sizes("Pad", "padding", padding, 2)
        self.fill = per_channel("Pad", "fill", fill)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        return padded(images, self.padding, channels_of("Pad", "fill", self.fill, images, images.dtype))

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        return padded(masks, self.padding, 0)


class CenterCrop(ImageTransform):
    """Cut `size`, (H', W') or a side, out of the middle of an image: (H, W, C) -> (H', W', C), a view.

    Where the borders cannot be equal, the upper or left one is smaller by one pixel; torchvision rounds half to even.
    Raises ValueError if `size` is less than 1, or greater than the image.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = check.sizes("CenterCrop", "size", size, 2, least=1)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        _check_size("CenterCrop", self.size, images)
        height, width = self.size
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        return images[:, :, top : top + height, left : left + width]

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        return self.compute(masks, numbers)


class RandomFlipHorizontal(ImageTransform):
    """Mirror an image left to right with probability `p`: (H, W, C) -> (H, W, C).

    For one image without a generator it draws `np.random.rand()`.
    Raises ValueError if `p` is not in [0, 1].
    """

    draws = 1
    axis = 3

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "p":
            value = check.number(type(self).__name__, "p", value, least=0, most=1)
        super().__setattr__(name, value)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        is_flipped = numbers[:, 0] < self.p
        if is_flipped.all() or not is_flipped.any():
            return np.flip(images, self.axis) if is_flipped.any() else images
        result = images.copy()
        result[is_flipped] = np.flip(images, self.axis)[is_flipped]
        return result

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        return self.compute(masks, numbers)


class RandomFlipVertical(RandomFlipHorizontal):
    """Mirror an image upside down with probability `p`: (H, W, C) -> (H, W, C).

    Raises ValueError if `p` is not in [0, 1].
    """

    axis = 2


class RandomCrop(ImageTransform):
    """Cut an image at random out of itself with a border of `padding` pixels: (H, W, C) -> (H', W', C).

    Without `size` the result is as large as the image, which is shifted by up to `padding` pixels along H and W:
    torchvision's `RandomCrop(32, padding=4)` of images 32 x 32 is `RandomCrop(4)`. `size` is (H', W') or a side. The
    border is filled with `fill`, a number or one per channel; that of a mask with 0.

    For one image without a generator or a size it draws `np.random.randint(low=-padding, high=padding + 1, size=2)`:
    the shift along H, then along W.

    Raises ValueError if `padding` is negative, `size` less than 1 or greater than an image with its border, or if the
    images' dtype does not hold `fill`.
    """

    draws = 2

    def __init__(self, padding: int = 3, *, size: int | tuple[int, int] | None = None, fill: Fill = 0) -> None:
        self.padding = padding
        self.size = None if size is None else check.sizes("RandomCrop", "size", size, 2, least=1)
        self.fill = per_channel("RandomCrop", "fill", fill)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "padding":
            value = check.integer("RandomCrop", "padding", value, least=0)
        super().__setattr__(name, value)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        return self._cut(images, numbers, channels_of("RandomCrop", "fill", self.fill, images, images.dtype))

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        return self._cut(masks, numbers, 0)

    def _cut(self, images: HostArray, numbers: HostArray, fill: Any) -> HostArray:
        size = self.size or images.shape[2:]
        larger = padded(images, (self.padding, self.padding), fill)
        _check_size("RandomCrop", size, larger)
        rows, columns = (steps(larger.shape[2 + i] - size[i] + 1, numbers[:, i]) for i in (0, 1))
        if len(images) == 1:  # without the views of all windows: in a third of the time
            top, left = int(rows[0]), int(columns[0])
            return larger[:, :, top : top + size[0], left : left + size[1]]
        cut: HostArray = sliding_window_view(larger, size, (2, 3))[np.arange(len(images)), :, rows, columns]
        return cut

    def _draw_globally(self, shape: tuple[int, ...]) -> HostArray:
        if self.size is not None:
            return super()._draw_globally(shape)
        drawn = np.random.randint(low=-self.padding, high=self.padding + 1, size=2)
        numbers: HostArray = (drawn + self.padding + 0.5) / (2 * self.padding + 1)
        return numbers[None]


def padded(images: HostArray, padding: Sequence[int], fill: Any) -> HostArray:
    """Images (N, C, H, W) with a border of `padding` rows and columns; the images themselves without one."""
    if not any(padding):
        return images
    (rows, columns), (*lead, height, width) = padding, images.shape
    result = np.empty((*lead, height + 2 * rows, width + 2 * columns), images.dtype)
    result[...] = fill
    result[:, :, rows : rows + height, columns : columns + width] = images
    return result


def _check_size(op: str, size: Sequence[int], images: HostArray) -> None:
    """Require a size of at most that of the images."""
    if any(s > n for n, s in zip(images.shape[2:], size, strict=True)):
        raise ValueError(f"{op}: size must be at most that of the image {images.shape[2:]}, but got {tuple(size)}")
