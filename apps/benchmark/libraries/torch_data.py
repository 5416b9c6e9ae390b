"""PyTorch's data sets with random transforms: item by item, as its users write them, and batch by batch.

Both get the random numbers that needle draws for the same batches, so that all can be compared; to draw them would take
torch a few microseconds per image more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from ..cases import Loading

__all__ = ["BatchedImages", "Images", "epochs"]

MEAN, STD = 0.5, 0.25


class Images(Dataset):
    """Images as bytes, transformed one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, work: Loading) -> None:
        self.images, self.labels, self.work = torch.from_numpy(images), torch.from_numpy(labels), work
        seed = int(np.random.default_rng(0).integers(1 << 63))
        batches = [np.random.default_rng([seed, i]).random((work.batch, work.draws)) for i in range(work.per)]
        numbers = np.concatenate(batches)
        self.is_flipped = torch.from_numpy(numbers[:, 0] < 0.5)
        self.shifts = torch.from_numpy((numbers[:, 1:3] * (2 * work.padding + 1)).astype(int))
        if work.rotates:
            angles = np.radians((2 * numbers[:, 3] - 1) * work.degrees)
            zero, cos, sin = np.zeros(len(angles)), np.cos(angles), np.sin(angles)
            matrices = np.stack([np.stack([cos, -sin, zero], -1), np.stack([sin, cos, zero], -1)], 1)
            self.matrices = torch.from_numpy(matrices.astype("float32"))  # for squares

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, padding = self.images[index], self.work.padding
        if self.is_flipped[index]:
            image = image.flip(-1)
        top, left = self.shifts[index].tolist()
        height, width = image.shape[1:]
        image = F.pad(image, [padding] * 4)[:, top : top + height, left : left + width]
        image = image.float().div_(255).sub_(MEAN).div_(STD)
        if self.work.rotates:
            image = rotated(image[None], self.matrices[index][None])[0]
        return image, self.labels[index]


class BatchedImages(Images):
    """The same, all images of a batch at once."""

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.tensor(indices)
        images, padding = self.images[at], self.work.padding
        height, width = images.shape[2:]
        images = torch.where(self.is_flipped[at][:, None, None, None], images.flip(-1), images)
        windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        top, left = self.shifts[at].unbind(1)
        images = windows[torch.arange(len(at)), :, top, left].float().div_(255).sub_(MEAN).div_(STD)
        if self.work.rotates:
            images = rotated(images, self.matrices[at])
        return images, self.labels[at]


def rotated(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def epochs(images: Images, **options: Any) -> Callable[[], list[torch.Tensor]]:
    """A function that reads all batches and returns the last."""
    loader = DataLoader(images, images.work.batch, **options)

    def epoch() -> list[torch.Tensor]:
        for batch in loader:
            fields = batch
        return list(fields)

    return epoch
