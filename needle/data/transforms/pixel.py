"""Transforms of the values of pixels: normalization, and squares that are blotted out. Masks stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import ImageTransform, channels_of, check_dtype, per_channel, steps

__all__ = ["Cutout", "Normalize"]

Numbers = float | Sequence[float] | HostArray  # a number, or one per channel


class Normalize(ImageTransform):
    """Subtract `mean` from an image and divide it by `std`, numbers or one per channel: (H, W, C) -> (H, W, C).

    Floats keep their dtype. Bytes become float32 and are divided by 255 first, so `mean` and `std` are those of values
    in [0, 1].

    Raises ValueError if a `std` is not greater than 0, or if an image has another number of channels, and TypeError if
    it is neither of floats nor of bytes (uint8).

    >>> Normalize(mean=[0.5], std=[0.25])(np.ones((1, 2, 1))).ravel()
    array([2., 2.])
    >>> Normalize(mean=0, std=1)(np.array([[[0], [255]]], "uint8")).ravel()
    array([0., 1.], dtype=float32)
    """

    def __init__(self, mean: Numbers, std: Numbers) -> None:
        self.mean, self.std = per_channel("Normalize", "mean", mean), per_channel("Normalize", "std", std)
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std must be greater than 0, but got {std}")

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        op, dtype = "Normalize", images.dtype
        check_dtype(op, images)
        is_bytes = dtype == np.uint8
        mean, std = (
            channels_of(op, "mean and std", value, images, np.float64 if is_bytes else dtype)
            for value in (self.mean, self.std)
        )
        if is_bytes:  # one product and one sum: twice as fast
            result = np.multiply(images, (1 / (255 * std)).astype(np.float32), dtype=np.float32)
            return np.subtract(result, (mean / std).astype(np.float32), out=result)
        result = np.subtract(images, mean)
        return np.divide(result, std, out=result)


class Cutout(ImageTransform):
    """Fill a square of side `size`, or (rows, columns), with `fill`: (H, W, C) -> (H, W, C), in the same dtype.

    Its center is drawn from all pixels, so at the border only a part of it covers the image.
    Raises ValueError if `size` is less than 1, or if the images' dtype does not hold `fill`.
    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    """

    draws = 2

    def __init__(self, size: int | tuple[int, int], fill: Numbers = 0) -> None:
        self.size = check.sizes("Cutout", "size", size, 2, least=1)
        self.fill = per_channel("Cutout", "fill", fill)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        fill = channels_of("Cutout", "fill", self.fill, images, images.dtype)
        is_row, is_column = (
            (first[:, None] <= np.arange(n)) & (np.arange(n) < first[:, None] + side)
            for n, side, first in (
                (n, side, steps(n, numbers[:, i]) - side // 2)
                for i, (n, side) in enumerate(zip(images.shape[2:], self.size, strict=True))
            )
        )
        result = images.copy()
        np.copyto(result, fill, where=(is_row[:, :, None] & is_column[:, None, :])[:, None])
        return result
