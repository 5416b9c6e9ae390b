"""Images with a mask each: a class, or a number, per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle.data.dataset import ImageDataset, Transform
from needle.data.transforms import Compose

__all__ = ["SegmentationDataset"]


class SegmentationDataset(ImageDataset):
    """Images (N, C, H, W) and masks (N, H, W), which are moved together: `dataset[i]` is an image and its mask.

    The transforms are called with both, the image as (H, W, C) and the mask as (H, W), and return both.

    Errors as in `ImageDataset`; besides, ValueError if images and masks differ in size, or if a transform does not
    return an image and a mask of one size.

    >>> from needle.data import RandomFlipHorizontal
    >>> masks = np.array([[[1, 0]]])
    >>> dataset = SegmentationDataset(np.zeros((1, 3, 1, 2)), masks, transforms=[RandomFlipHorizontal(p=1)])
    >>> dataset[0][1]
    array([[0, 1]])
    """

    def __init__(self, images: Any, masks: Any, *, transforms: Sequence[Transform] | None = None) -> None:
        super().__init__(images, masks, transforms=transforms)
        shapes = [array.shape for array in self.arrays]
        if len(shapes[0]) != 4 or shapes[1] != (len(self), *shapes[0][2:]):
            raise ValueError(
                f"SegmentationDataset: images must be N x C x H x W and masks N x H x W, but got shapes {shapes}"
            )

    def _transformed(self, first: Any, *others: Any) -> tuple[Any, ...]:
        """An image (C, H, W) and its mask (H, W) after the transforms."""
        if not self.transforms:
            return (first, *others)
        self._check_layout()
        moved = Compose(self.transforms)(first.transpose(1, 2, 0), *others)
        shapes = [np.shape(array) for array in (moved if isinstance(moved, tuple) else (moved,))]
        if [*map(len, shapes)] != [3, 2] or shapes[0][:2] != shapes[1]:
            raise ValueError(
                f"SegmentationDataset: transforms must return an image H x W x C and its mask, but got shapes {shapes}"
            )
        return moved[0].transpose(2, 0, 1), moved[1]
