"""Datasets whose items are rows of arrays, and a copy of these arrays on a GPU."""

from __future__ import annotations

import math
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from needle import tuning
from needle.backend import Device, HostArray
from needle.data.dataset import Dataset, ImageDataset, NDArrayDataset
from needle.data.parts import Subset
from needle.data.pixels import PixelDataset
from needle.data.transforms import BatchTransform, Compose, Normalize

__all__: list[str] = []

Array = Any  # a raw array of the device

# The methods by which needle's own datasets of arrays take items; one that has others is asked for its items.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "take": (NDArrayDataset.take,),
    "__getitem__": (NDArrayDataset.__getitem__,),
    "_field": (NDArrayDataset._field, PixelDataset._field),
    "_transformed": (NDArrayDataset._transformed,),
    "apply_transforms": (Dataset.apply_transforms, ImageDataset.apply_transforms),
}


def to_float32(array: HostArray) -> HostArray:
    """Convert floats of any width to float32; other arrays are returned as they are."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


class Rows:
    """Item i of a dataset is row `order[i]` of its arrays, or row i; bytes of channel c become floats by `table[c]`."""

    def __init__(self, arrays: tuple[HostArray, ...], order: HostArray | None, table: HostArray | None) -> None:
        self.arrays, self.order, self.table = arrays, order, table

    def numbers(self, indices: HostArray) -> HostArray:
        """The rows of the items at these indices."""
        return indices if self.order is None else self.order[indices]


def rows_of(dataset: Dataset, transforms: tuple[BatchTransform, ...]) -> Rows | None:
    """The rows of a dataset whose batches, after the transforms, are just these, with bytes as floats; else None.

    So are needle's datasets of arrays and parts of them, without transforms, or of bytes with no others than
    `Normalize`. `table` (C, 256) holds what the host makes of each byte: the transforms compute it.
    """
    if type(dataset) is Subset:
        rows = rows_of(dataset.dataset, transforms)
        return None if rows is None else Rows(rows.arrays, rows.numbers(dataset.indices), rows.table)
    if not isinstance(dataset, NDArrayDataset) or dataset.transforms or not len(dataset):
        return None
    if any(getattr(type(dataset), name) not in known for name, known in _PLAIN.items()):
        return None
    arrays, is_pixels = dataset.arrays, isinstance(dataset, PixelDataset)
    if any(array.dtype.kind not in "fiub" or array.dtype.isbuiltin != 1 for array in arrays):
        return None
    if not transforms and not is_pixels:
        return Rows(arrays, None, None)
    if arrays[0].dtype != np.uint8 or any(type(transform) is not Normalize for transform in transforms):
        return None
    try:
        return Rows(arrays, None, _table(dataset, transforms))
    except (TypeError, ValueError):  # images that a transform refuses: it will say so of a batch
        return None


def _table(dataset: NDArrayDataset, transforms: tuple[BatchTransform, ...]) -> HostArray:
    """What the host makes of each byte in each channel: (C, 256), float32."""
    transform, no_numbers = Compose(transforms), np.empty((1, 0))
    transform.apply(dataset.take([0])[:1], no_numbers)  # raises if these images have a wrong shape
    channels = dataset.arrays[0].shape[1]
    images = np.tile(np.arange(256, dtype="uint8").reshape(16, 16), (1, channels, 1, 1))
    if isinstance(dataset, PixelDataset):
        (images,) = PixelDataset(images).take([0])
    (values,) = transform.apply((images,), no_numbers)
    return np.ascontiguousarray(values.reshape(channels, 256), "float32")


class Resident:
    """Arrays of a dataset and their copies on a device, floats as float32."""

    known: ClassVar[WeakValueDictionary[Any, Resident]] = WeakValueDictionary()

    def __init__(self, arrays: tuple[HostArray, ...], device: Device, uploads: Any) -> None:
        self.arrays = arrays  # so that nobody else gets their addresses, which are the key
        self.there: list[Array] = [_sent(array, device, uploads) for array in arrays]

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of a loader, or one in another process, sends the arrays again

    @classmethod
    def of(cls, rows: Rows, device: Device, uploads: Any) -> Resident | None:
        """The copies for these rows, shared by all who ask for them; None if there is not room enough."""
        places = ((a.ctypes.data, a.shape, a.strides, a.dtype) for a in rows.arrays)
        key = (device.name, *places)
        found = cls.known.get(key)
        size = sum(math.prod(array.shape) * _dtype(array).itemsize for array in rows.arrays)
        if found is None and size <= uploads.room() * tuning.RESIDENT_SHARE:
            found = cls.known[key] = cls(rows.arrays, device, uploads)
        return found


def _dtype(array: HostArray) -> Any:
    return np.dtype("float32") if array.dtype.kind == "f" else array.dtype


def _sent(array: HostArray, device: Device, uploads: Any) -> Array:
    """A copy of an array on a device, sent in pieces: the memory by which they go stays small."""
    with device.current():
        there = device.xp.empty(array.shape, _dtype(array))
    step = max(1, tuning.UPLOAD_BYTES * len(array) // max(1, there.nbytes))
    for start in range(0, len(array), step):
        piece = uploads.send([to_float32(array[start : start + step])])
        piece.read(lambda part, start=start: there.__setitem__(slice(start, start + len(part)), part))
    return there
