"""How the batches of a loader get to its device: copied when they are read, sent ahead, or gathered there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from needle import kernels
from needle.autograd import Tensor
from needle.backend import Device, HostArray, cpu
from needle.data.dataset import Dataset, NDArrayDataset
from needle.data.rows import Resident, Rows, rows_of, to_float32
from needle.data.transforms import BatchTransform

__all__: list[str] = []

Array = Any  # a raw array of the device
Fields = tuple[HostArray, ...]


def feed_of(dataset: Dataset, transforms: tuple[BatchTransform, ...], device: Device, ahead: int) -> Feed | RowsFeed:
    """How an epoch's batches of a dataset get to a device, if `ahead` of them are prepared in advance."""
    uploads = device.uploads(max(2, ahead + 1))
    if uploads is None:
        return Feed(device, dataset, ahead > 0)
    rows = rows_of(dataset, transforms)
    return SentFeed(device, dataset, ahead > 0, uploads) if rows is None else RowsFeed(device, uploads, rows)


# ---- batches on their way: `tensors` is called once, by the reader ---------------------------------------------------


class HostBatch:
    """Fields that are still on the host, or are tensors there already."""

    def __init__(self, fields: list[Tensor | HostArray]) -> None:
        self.fields = fields

    def tensors(self, device: Device) -> list[Tensor]:
        """The fields as constant tensors on a device: copies, unless they are such tensors already."""
        return [_on(device, field) for field in self.fields]


class SentBatch:
    """Arrays that were sent to a device, and the function that makes the fields of them there."""

    def __init__(self, upload: Any, fields: Callable[..., list[Array]]) -> None:
        self.upload, self.fields = upload, fields

    def tensors(self, device: Device) -> list[Tensor]:
        """The fields as constant tensors on a device."""
        return [_on(device, Tensor.make_const(array)) for array in self.upload.read(self.fields)]


def _on(device: Device, field: Tensor | HostArray) -> Tensor:
    """A field as a constant tensor on a device; if that is another device than at first, by way of the host."""
    if isinstance(field, Tensor):
        if field.device == device:
            return field
        field = field.numpy()
    return Tensor(field, device=device, requires_grad=False)


# ---- feeds: what the batches of an epoch have in common --------------------------------------------------------------


class Feed:
    """The common case: a field is copied when its tensor is made.

    Images for the CPU become tensors in batch-last order before that. A convolution would make that copy twice, for its
    output and for its weight gradient. A thread that works ahead makes it alone: `parallel_for` limits BLAS to one
    thread in the whole process, which would slow the model down. What works ahead also copies memory that the dataset
    may use again.
    """

    def __init__(self, device: Device, dataset: Dataset, is_ahead: bool) -> None:
        self.device, self.is_ahead = device, is_ahead
        self.is_shared = type(dataset).take not in (Dataset.take, NDArrayDataset.take)

    def hold(self, fields: Fields) -> HostBatch | SentBatch:
        """Take charge of the fields of a batch, in the thread that prepares them."""
        return HostBatch([self._prepared(field) for field in fields])

    def _prepared(self, field: HostArray) -> Tensor | HostArray:
        if self.device == cpu() and field.ndim >= 4 and field.dtype.kind == "f":
            return Tensor.make_const(kernels.to_batch_last(field, shared=not self.is_ahead))
        return field.copy() if self.is_ahead and self.is_shared else field


class SentFeed(Feed):
    """Fields are sent ahead, all of a batch in one copy; images are turned to batch-last order on the device."""

    def __init__(self, device: Device, dataset: Dataset, is_ahead: bool, uploads: Any) -> None:
        super().__init__(device, dataset, is_ahead)
        self.uploads = uploads

    def hold(self, fields: Fields) -> HostBatch | SentBatch:
        if all(field.dtype.kind in "fiub" and field.dtype.isbuiltin == 1 for field in fields):
            return SentBatch(self.uploads.send(fields), lambda *there: [_copied(array) for array in there])
        return super().hold(fields)  # a tensor refuses them


class RowsFeed:
    """Batches are rows of arrays: gathered on the device, to which their numbers are sent, or sent as they are stored.

    Bytes become floats on the device, by a table of the values that the host would compute.
    """

    def __init__(self, device: Device, uploads: Any, rows: Rows) -> None:
        self.uploads, self.rows = uploads, rows
        self.resident = Resident.of(rows, device, uploads)
        self.table: Array = None if rows.table is None else device.asarray(rows.table)

    def take(self, indices: HostArray) -> SentBatch:
        """The items at these indices of the dataset."""
        numbers = self.rows.numbers(indices)
        if self.resident is not None:
            return SentBatch(self.uploads.send([numbers]), partial(self._gathered, self.resident.there))
        return SentBatch(self.uploads.send([to_float32(array[numbers]) for array in self.rows.arrays]), self._copied)

    def _gathered(self, arrays: list[Array], numbers: Array) -> list[Array]:
        first, *others = arrays
        return [self._first(first, numbers), *(array[numbers] for array in others)]

    def _copied(self, first: Array, *others: Array) -> list[Array]:
        return [self._first(first, None), *map(_copied, others)]

    def _first(self, first: Array, numbers: Array | None) -> Array:
        """The first field, images in batch-last order."""
        if self.table is not None or _is_image(first):
            return turn(first, numbers, table=self.table)
        return _copied(first) if numbers is None else first[numbers]


def _copied(array: Array) -> Array:
    """A copy on the device; of float images, in batch-last order."""
    return turn(array) if _is_image(array) else array.copy()


def _is_image(array: Array) -> bool:
    return array.dtype == "float32" and array.ndim in (4, 5) and bool(array.size)


def turn(images: Array, numbers: Array | None = None, table: Array | None = None) -> Array:
    """Images (M, C, *S), or those of the numbers (N,), in batch-last order; bytes by their table (C, 256)."""
    from needle.kernels.gpu.batch import turn  # no device but a GPU needs it

    return turn(images, numbers, table=table)
