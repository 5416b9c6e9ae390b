"""Datasets: numbered items, each a tuple of fields (an image and its label, say)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


class Dataset:
    """Numbered items: a subclass says what `dataset[i]` and `len(dataset)` are.

    An item is one field or a tuple of fields. `transforms` are callables for `apply_transforms`, first to last.
    """

    def __init__(self, transforms: Sequence[Transform] | None = None):
        self.transforms = tuple(transforms or ())

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: a dataset must define __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__}: a dataset must define __len__")

    def apply_transforms(self, x: np.ndarray) -> np.ndarray:
        """`x` after every transform, in order."""
        for transform in self.transforms:
            x = transform(x)
        return x

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, ...]:
        """The items at B `indices`, stacked field by field: a tuple of arrays (B, ...).

        This is what the loader calls for a batch. A dataset that can fetch many items at once overrides it.
        """
        items = [self[int(index)] for index in indices]
        rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
        counts = {len(row) for row in rows}
        if len(counts) > 1:
            raise ValueError(f"Dataset.take: items must agree in their number of fields, but got {sorted(counts)}")
        return tuple(_stacked(number, field) for number, field in enumerate(zip(*rows, strict=True)))


class NDArrayDataset(Dataset):
    """Arrays (N, ...) of one length N: `dataset[i]` is the tuple of `array[i]`.

    A slice or an array of indices gives the same items stacked. The transforms apply to the first array's items, one
    at a time; without transforms a batch is one indexing of each array.

    Raises ValueError where there is no array, an array without a first axis, or arrays of different lengths.

    >>> dataset = NDArrayDataset(np.array([[0.5, 1], [2, 3], [4, 5]]), np.array([7, 8, 9]))
    >>> dataset[1:]
    (array([[2., 3.],
           [4., 5.]]), array([8, 9]))
    """

    def __init__(self, *arrays: Any, transforms: Sequence[Transform] | None = None):
        super().__init__(transforms)
        self.arrays = tuple(np.asarray(array) for array in arrays)
        shapes = [array.shape for array in self.arrays]
        if not shapes or () in shapes:
            raise ValueError(f"NDArrayDataset: arrays must have at least one axis each, but got shapes {shapes}")
        if len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"NDArrayDataset: arrays must agree in length, but got shapes {shapes}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        if self.transforms and not isinstance(index, int | np.integer):
            return super().take(np.arange(len(self))[index])
        first, *others = (array[index] for array in self.arrays)
        return (self.apply_transforms(first), *others)

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, ...]:
        """The items at B `indices`, by one indexing of each array: a tuple of arrays (B, ...)."""
        return self[np.asarray(indices)]


class ImageDataset(NDArrayDataset):
    """Images (N, C, H, W), with the channels before the pixels as a convolution takes them, and their labels (N,).

    The transforms see an image as (H, W, C), the form that `RandomCrop` and `RandomFlipHorizontal` take.
    """

    def apply_transforms(self, x: np.ndarray) -> np.ndarray:
        """`x` (C, H, W) after every transform, in order."""
        return np.moveaxis(super().apply_transforms(np.moveaxis(x, 0, -1)), -1, 0) if self.transforms else x


def _stacked(number: int, field: tuple[Any, ...]) -> np.ndarray:
    """B values of one field, of one shape S: an array (B, *S)."""
    values = [np.asarray(value) for value in field]
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise ValueError(f"Dataset.take: items must agree in shape, but field {number} has shapes {sorted(shapes)}")
    return np.stack(values)
