"""Datasets: numbered items, each a tuple of fields (an image and its label, say)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any, Self, TypeAlias

import numpy as np

from needle.backend import HostArray

__all__ = ["Dataset", "ImageDataset", "NDArrayDataset"]

MOST_CHANNELS = 4  # of a photograph: gray or color, with or without opacity

Transform: TypeAlias = Callable[..., Any]  # of an image, or of an image and its masks, to as many arrays


class Dataset:
    """Numbered items: a subclass defines `dataset[i]` and `len(dataset)`.

    An item is one field or a tuple of fields. `apply_transforms` applies `transforms`, callables from array to array,
    in order. `with_transforms` returns the same items with others: training images are augmented, and those that were
    split from them for validation are not.

    Raises TypeError if `transforms` is not a sequence of callables.
    """

    def __init__(self, transforms: Sequence[Transform] | None = None) -> None:
        self.transforms = check_transforms(type(self).__name__, () if transforms is None else transforms)

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: a dataset must define __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__}: a dataset must define __len__")

    def apply_transforms(self, x: HostArray) -> HostArray:
        """Apply every transform to `x`, in order."""
        for transform in self.transforms:
            x = transform(x)
        return x

    def with_transforms(self, transforms: Sequence[Transform] | None) -> Self:
        """The same items with these transforms in place of the dataset's: a copy that shares its arrays."""
        other = copy(self)
        Dataset.__init__(other, transforms)
        return other

    def take(self, indices: Iterable[int]) -> tuple[HostArray, ...]:
        """The items at B `indices`, stacked field by field: one array (B, ...) per field.

        The loader calls this for each batch. Override it in a dataset that can fetch many items at once. Items must
        not share memory with later ones.

        Raises ValueError if items differ in their number of fields, or in the shape of a field.
        """
        items = [self[int(index)] for index in indices]
        rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
        counts = {len(row) for row in rows}
        if len(counts) > 1:
            raise ValueError(f"Dataset.take: items must agree in their number of fields, but got {sorted(counts)}")
        return tuple(_stack(position, field) for position, field in enumerate(zip(*rows, strict=True)))


class NDArrayDataset(Dataset):
    """Arrays (N, ...) of one length N: `dataset[i]` is the tuple of `array[i]`.

    A slice or an array of indices returns those items stacked. The arrays are not copied, but their items are: a
    transform may write into its image.
    The transforms apply to the items of the first array, one at a time. Without transforms, a batch is one indexing
    operation per array. Dtypes are kept, and so is the layout: needle's transforms of images take (H, W, C). For images
    (C, H, W), as convolutions take them, use `ImageDataset`.

    Raises ValueError if there is no array, if an array has no axes, or if lengths differ, and TypeError if an array
    holds objects (a list of transforms, which must be passed by name). Indexing raises IndexError for what is no index.

    >>> dataset = NDArrayDataset(np.array([[0.5, 1], [2, 3], [4, 5]]), np.array([7, 8, 9]))
    >>> dataset[1:]
    (array([[2., 3.],
           [4., 5.]]), array([8, 9]))
    """

    def __init__(self, *arrays: Any, transforms: Sequence[Transform] | None = None) -> None:
        super().__init__(transforms)
        self.arrays = tuple(array if isinstance(array, np.memmap) else np.asarray(array) for array in arrays)
        shapes = [array.shape for array in self.arrays]
        if not shapes or () in shapes:
            raise ValueError(f"NDArrayDataset: arrays must have at least one axis each, but got shapes {shapes}")
        for array in self.arrays:
            if array.dtype.kind == "O":
                raise TypeError(f"NDArrayDataset: arrays must hold numbers, but got {array.flat[:1].tolist()!r:.100}")
        if len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"NDArrayDataset: arrays must agree in length, but got shapes {shapes}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        check_index(type(self).__name__, index)
        if self.transforms and not isinstance(index, int | np.integer):
            index = np.arange(len(self))[index]
            if index.ndim:
                return super().take(index)
        return self._transformed(*(self._field(position, index) for position in range(len(self.arrays))))

    def _field(self, position: int, index: Any) -> Any:
        """A field of the items at an index, before the transforms and in memory of its own."""
        array = np.asarray(self.arrays[position])
        return _own(array[index], array)

    def _transformed(self, first: Any, *others: Any) -> tuple[Any, ...]:
        """An item after the transforms."""
        return (self.apply_transforms(first), *others)

    def take(self, indices: Iterable[int]) -> tuple[HostArray, ...]:
        """The items at B `indices`, one array (B, ...) per field, by one indexing operation each."""
        return self[np.asarray(indices)]


class ImageDataset(NDArrayDataset):
    """Images (N, C, H, W), channels first as convolutions take them, and labels (N,).

    The transforms receive an image as (H, W, C), the layout of `RandomCrop` and `RandomFlipHorizontal`.

    Errors as in `NDArrayDataset`; besides, with transforms, ValueError if the images do not have four axes, or have
    their channels last.
    """

    def __init__(self, *arrays: Any, transforms: Sequence[Transform] | None = None) -> None:
        super().__init__(*arrays, transforms=transforms)
        if self.transforms:
            self._check_layout()

    def _check_layout(self) -> None:
        shape = self.arrays[0].shape
        if len(shape) != 4 or is_channels_first(shape[:0:-1]):
            hint = "; use NDArrayDataset for N x H x W x C" if len(shape) == 4 else ""
            raise ValueError(f"ImageDataset: images must be N x C x H x W, but got shape {shape}{hint}")

    def apply_transforms(self, x: HostArray) -> HostArray:
        """Apply every transform to an image: (C, H, W) -> (C, H, W). Raises ValueError if one returns no image."""
        if not self.transforms:
            return x
        self._check_layout()  # again, since transforms may be assigned
        return transform_image("ImageDataset", super().apply_transforms, x)


def transform_image(op: str, transform: Transform, x: HostArray) -> HostArray:
    """An image (C, H, W) after a transform of images (H, W, C). Raises ValueError if it returns no image."""
    image = np.asarray(transform(x.transpose(1, 2, 0)))
    if image.ndim != 3 or (is_channels_first(image.shape) and len(x) <= MOST_CHANNELS):
        raise ValueError(f"{op}: transforms must return images H x W x C, but got shape {image.shape}")
    return image.transpose(2, 0, 1)


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether of three axes the first can only be channels, and the others not."""
    return shape[0] <= MOST_CHANNELS < min(shape[1:])


def check_transforms(op: str, transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """A sequence of callables as a tuple."""
    if not isinstance(transforms, Sequence) or not all(map(callable, transforms)):
        raise TypeError(f"{op}: transforms must be a list of callables, but got {transforms!r:.100}")
    return tuple(transforms)


def check_index(op: str, index: Any) -> None:
    """Refuse what NumPy would take for something else than items of a dataset: it adds an axis, or cuts an item."""
    if isinstance(index, tuple | bool | np.bool_) or index is None:
        raise IndexError(f"{op}: index must be an integer, a slice or an array, but got {index!r}")


def _own(items: Any, array: HostArray) -> Any:
    """Items of an array, copied if they are a view of it."""
    return items.copy() if isinstance(items, np.ndarray) and np.may_share_memory(items, array) else items


def _stack(position: int, field: tuple[Any, ...]) -> HostArray:
    """Stack B values of one field, each of shape S: (B, *S)."""
    values = [np.asarray(value) for value in field]
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise ValueError(f"Dataset.take: items must agree in shape, but field {position} has shapes {sorted(shapes)}")
    return np.stack(values)
