"""The loader: batches of tensors from a dataset, in order or shuffled, prepared ahead by a thread if asked."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend_ndarray import BackendDevice
from needle.data.dataset import Dataset

T = TypeVar("T")


class DataLoader:
    """Batches of `dataset`: each a tuple of tensors (B, ...), one per field of an item, that require no gradient.

    Every `iter(loader)` starts a new epoch. Floats arrive as float32, integers in the dtype they have. The last batch
    may be smaller than `batch_size`; `drop_last` leaves it out.

    Shuffling draws one `np.random.permutation(len(dataset))` per epoch from NumPy's global generator; with a `seed`
    the loader draws the orders from a generator of its own, the same sequence of orders for the same seed.

    `prefetch` is the number of batches that one background thread prepares ahead. The default is 0, no thread: random
    transforms draw from NumPy's global generator, and beside a thread the order of those draws and of the model's own
    (dropout) is a matter of timing. An error in the thread is raised by the `next()` it belongs to; leaving the loop
    early stops the thread.

    >>> from needle.data import NDArrayDataset
    >>> loader = DataLoader(NDArrayDataset(np.zeros((5, 3)), np.arange(5)), batch_size=2)
    >>> [(images.shape, labels.numpy().tolist()) for images, labels in loader]
    [((2, 3), [0, 1]), ((2, 3), [2, 3]), ((1, 3), [4])]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        prefetch: int = 0,
        device: BackendDevice | None = None,
    ):
        self.dataset = check.instance("DataLoader", "dataset", dataset, Dataset)
        self.batch_size = check.integer("DataLoader", "batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.prefetch = check.integer("DataLoader", "prefetch", prefetch, least=0)
        self.device = device
        self._generator = None
        if seed is not None:
            self._generator = np.random.default_rng(check.integer("DataLoader", "seed", seed, least=0))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last else whole + bool(rest)

    def __iter__(self) -> Generator[tuple[Tensor, ...]]:
        count = len(self.dataset)
        order = (self._generator or np.random).permutation(count) if self.shuffle else np.arange(count)
        chunks = (order[number * self.batch_size : (number + 1) * self.batch_size] for number in range(len(self)))
        batches = (tuple(map(_float32, self.dataset.take(chunk))) for chunk in chunks)
        return self._tensors(_ahead(batches, self.prefetch) if self.prefetch else batches)

    def _tensors(self, batches: Generator[tuple[np.ndarray, ...]]) -> Generator[tuple[Tensor, ...]]:
        """The batches as tensors on the loader's device, made in the reader's thread, where its modes hold."""
        with closing(batches):
            for batch in batches:
                yield tuple(Tensor(field, device=self.device, requires_grad=False) for field in batch)


def _float32(array: np.ndarray) -> np.ndarray:
    """The array, as float32 if it holds floats of any width."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _ahead(source: Iterator[T], depth: int) -> Generator[T]:
    """The items of `source`, which one thread fetches up to `depth` ahead of the reader.

    The thread starts at the first `next()`. It waits for nothing but a free slot, so that closing this generator
    (which `break`, an error in the loop and garbage collection do) stops it by handing out one slot more.
    """
    fetched: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()  # an item in a 1-tuple, an error, or the end
    slots = threading.Semaphore(depth)
    left = threading.Event()

    def fetch() -> None:
        try:
            while slots.acquire() and not left.is_set():
                fetched.put((next(source),))
        except StopIteration:
            fetched.put(None)
        except BaseException as error:  # whatever it is, the reader is the one to see it
            fetched.put(error)

    thread = threading.Thread(target=fetch, name="needle-prefetch", daemon=True)
    thread.start()
    try:
        while (outcome := fetched.get()) is not None:
            if isinstance(outcome, BaseException):
                raise outcome
            slots.release()
            yield outcome[0]
    finally:
        left.set()
        slots.release()
        if thread is not threading.current_thread():  # the garbage collector may run this in any thread
            thread.join()
