"""The loader: batches of tensors from a dataset, in order or shuffled, optionally prepared ahead by a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from needle import check, kernels
from needle.autograd import Tensor
from needle.backend import Device, HostArray, cpu, default_device
from needle.backend.parallel import start_thread
from needle.data.dataset import Dataset, NDArrayDataset

__all__ = ["DataLoader"]

T = TypeVar("T")


class Batch(tuple[Tensor, ...]):
    """The fields of a batch. Two batches are equal if they are the same object: tensors compare by element."""

    __slots__ = ()
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__


class DataLoader:
    """Batches of `dataset`: tuples of tensors (B, ...), one per field of an item, that require no gradient.

    Every `iter(loader)` starts a new epoch. Floats become float32, integers keep their dtype. The last batch may be
    smaller than `batch_size`; `drop_last` omits it. Options that are set later hold from the next epoch.

    Shuffling draws one `np.random.permutation(len(dataset))` per epoch from NumPy's global generator. With a `seed` the
    loader has its own generator, and the same seed produces the same sequence of orders.

    `prefetch` is the number of batches that a background thread prepares ahead. The default is 0, no thread: random
    transforms draw from NumPy's global generator, and with a thread the order of these draws and of the model's own
    (dropout) depends on timing. An error in the thread is raised by the `next()` that asked for its batch. Leaving the
    loop early stops the thread. A forked process has no such thread: it must begin an epoch of its own.

    On the CPU, large batches of float images (four axes) are stored batch-last, the memory order of convolutions. Their
    shape stays (B, ...), and `numpy()` returns a row-major copy as always.

    Raises TypeError if `dataset` is not a Dataset, `shuffle` or `drop_last` not a bool, or `device` not a Device, and
    ValueError if `batch_size` is less than 1 or `prefetch` or `seed` is negative. Errors of the dataset pass through.

    >>> from needle.data import NDArrayDataset
    >>> loader = DataLoader(NDArrayDataset(np.zeros((5, 3)), np.arange(5)), batch_size=2)
    >>> [(images.shape, labels.numpy().tolist()) for images, labels in loader]
    [((2, 3), [0, 1]), ((2, 3), [2, 3]), ((1, 3), [4])]
    """

    dataset: Dataset
    batch_size: int
    shuffle: bool
    drop_last: bool
    prefetch: int
    device: Device | None

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        prefetch: int = 0,
        device: Device | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.drop_last, self.prefetch, self.device = drop_last, prefetch, device
        self._generator = None
        if seed is not None:
            self._generator = np.random.default_rng(check.integer("DataLoader", "seed", seed, least=0))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _OPTIONS[name](value) if name in _OPTIONS else value)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, remainder = divmod(len(self.dataset), self.batch_size)
        return full if self.drop_last else full + bool(remainder)

    def __iter__(self) -> Generator[tuple[Tensor, ...]]:
        count, size = len(self.dataset), self.batch_size
        order = (self._generator or np.random).permutation(count) if self.shuffle else np.arange(count)
        chunks = (order[i * size : (i + 1) * size] for i in range(len(self)))
        batches = (tuple(map(_to_float32, self.dataset.take(chunk))) for chunk in chunks)
        if not self.prefetch:
            return self._tensors(batches)
        if type(self.dataset).take not in (Dataset.take, NDArrayDataset.take):  # a user's may use its memory again
            batches = (tuple(field.copy() for field in batch) for batch in batches)
        return self._tensors(_ahead(batches, self.prefetch))

    def _tensors(self, batches: Generator[tuple[HostArray, ...]]) -> Generator[tuple[Tensor, ...]]:
        """The batches as tensors on the loader's device, made in the reader's thread, so that its modes apply."""
        with closing(batches):
            for batch in batches:
                device = self.device or default_device()
                yield Batch(_to_tensor(field, device) for field in batch)


_OPTIONS: dict[str, Callable[[Any], Any]] = {  # the check of each, whenever it is set
    "dataset": lambda value: check.instance("DataLoader", "dataset", value, Dataset),
    "batch_size": lambda value: check.integer("DataLoader", "batch_size", value, least=1),
    "shuffle": lambda value: check.instance("DataLoader", "shuffle", value, bool),
    "drop_last": lambda value: check.instance("DataLoader", "drop_last", value, bool),
    "prefetch": lambda value: check.integer("DataLoader", "prefetch", value, least=0),
    "device": lambda value: value if value is None else check.instance("DataLoader", "device", value, Device),
}


def _to_tensor(field: HostArray, device: Device) -> Tensor:
    """A copy of a field as a constant tensor; large float images on the CPU are copied to batch-last order.

    A convolution would make that copy twice, for its output and for its weight gradient. It is made in the
    reader's thread: `parallel_for` limits BLAS to one thread in the whole process, which would slow the model down.
    """
    if device == cpu() and field.ndim == 4 and field.dtype.kind == "f" and kernels.needs_blocked_copy(field):
        return Tensor.make_const(kernels.to_batch_last(field))
    return Tensor(field, device=device, requires_grad=False)


def _to_float32(array: HostArray) -> HostArray:
    """Convert floats of any width to float32; other arrays are returned as they are."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _ahead(source: Iterator[T], depth: int) -> Generator[T]:
    """The items of `source`, fetched by one thread up to `depth` ahead of the reader.

    The thread starts at the first `next()`. It waits only for a free slot, so closing this generator (on `break`, on an
    error in the loop, or by the garbage collector) stops the thread by adding one more slot. The queues are simple
    ones, on which a finalizer may call `put` in any thread at any time.
    """
    from queue import SimpleQueue  # imported when it is needed: the import takes a millisecond

    fetched: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()  # (item,), an error, or None at the end
    slots: SimpleQueue[None] = SimpleQueue()
    is_open, reader = True, os.getpid()

    def fetch() -> None:
        try:
            slots.get()
            while is_open:
                fetched.put((next(source),))
                slots.get()
        except StopIteration:
            fetched.put(None)
        except BaseException as error:  # every error is raised in the reader
            fetched.put(error)

    def stop() -> None:
        nonlocal is_open
        is_open = False
        slots.put(None)
        if thread.is_alive() and thread is not threading.current_thread():  # the garbage collector may run in `fetch`
            thread.join()

    thread = threading.Thread(target=fetch, name="needle-prefetch", daemon=True)
    try:
        try:
            for _ in range(depth):
                slots.put(None)
            start_thread(thread, fetched.put)
            while (outcome := fetched.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                slots.put(None)
                yield outcome[0]
                if os.getpid() != reader:  # the thread does not exist here
                    raise RuntimeError(
                        "DataLoader: an epoch with prefetch must be read by the process that began it, but got a "
                        "forked one; begin a new epoch there"
                    )
        finally:
            stop()
    finally:  # once more: an interrupt may come in `stop`, too
        stop()
