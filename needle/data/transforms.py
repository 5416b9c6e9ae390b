"""Random transforms of one image, an array (H, W, C); they draw from NumPy's global generator (`np.random.seed`).

An image whose first axis can only be channels, such as (3, 32, 32), is refused: it would be flipped upside down.
`ImageDataset` stores images (C, H, W) and hands them to its transforms as (H, W, C).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import MOST_CHANNELS

__all__ = ["RandomCrop", "RandomFlipHorizontal"]


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

    def __call__(self, image: HostArray) -> HostArray:
        _check_image("RandomFlipHorizontal", image)
        return image[:, ::-1] if np.random.rand() < self.p else image


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

    def __call__(self, image: HostArray) -> HostArray:
        height, width, channels = _check_image("RandomCrop", image)
        top, left = self.padding + np.random.randint(low=-self.padding, high=self.padding + 1, size=2)
        padded = np.zeros((height + 2 * self.padding, width + 2 * self.padding, channels), image.dtype)
        padded[self.padding : self.padding + height, self.padding : self.padding + width] = image
        return padded[top : top + height, left : left + width]


def _check_image(op: str, image: HostArray) -> tuple[int, ...]:
    """Check that an image has 3 axes with the channels last, and return its shape (H, W, C)."""
    shape = np.shape(image)
    if len(shape) != 3:
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}")
    if shape[0] <= MOST_CHANNELS < min(shape[1:]):
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}, C x H x W; use ImageDataset")
    return shape
