"""Shards: a dataset whose items are spread over the ranks, and batches that are made of parts of all shards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import heapify, heapreplace

import numpy as np

from needle import check
from needle.backend import HostArray, get_rng_state, set_rng_state
from needle.backend.communicator import Communicator, Part, current_communicator
from needle.data.dataset import Dataset
from needle.data.feed import Fields, HostBatch
from needle.data.parts import may_draw

__all__ = ["Shard"]


class Shard:
    """The items of `dataset` are those that only this rank has: `DataLoader(Shard(dataset), batch_size)`.

    Without it all ranks must have the same dataset, of which the loader fetches the items of a rank's part. With it a
    batch of `batch_size` items consists of some items of every shard: the first ones of rank 0, then those of rank 1,
    and so on. Shards may have any lengths: each gives a number of items in proportion to its length, so all have as
    many batches and end together. No item is repeated, none is left out.

    A batch of which some rank would have no item goes to all ranks, in an exchange, and is then divided as others are.
    That happens at the end of an epoch, or where a shard has fewer items than there are batches.

    With `shuffle`, all ranks draw one seed per epoch from the same stream, and each shuffles its shard by the seed and
    its rank. Transforms of batches draw for the whole batch; those that mix images mix those of a rank. What
    `dataset` draws for its items comes, unless there is `prefetch`, from a stream of the rank's own, so NumPy's global
    stream stays the same on all ranks.

    `lengths` are the numbers of items of all shards, by rank. They are exchanged here: so all ranks make their shards
    at the same time, and read them together, by `worker_batches`, `fit` or `evaluate`. A loader's state fits all ranks.
    Within an epoch a run can go on only with shards of the same lengths, between epochs with others of the same sum.

    Raises TypeError if `dataset` is not a Dataset.

    >>> from needle.data import DataLoader, NDArrayDataset
    >>> shard = Shard(NDArrayDataset(np.arange(5)))
    >>> shard.lengths
    (5,)
    >>> [items.numpy().tolist() for (items,) in DataLoader(shard, 2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset: Dataset = check.instance("Shard", "dataset", dataset, Dataset)
        communicator = current_communicator()
        lengths = np.zeros(communicator.size, "int64")
        lengths[communicator.rank] = len(dataset)
        communicator.all_reduce(lengths)
        self.rank: int = communicator.rank
        self.lengths: tuple[int, ...] = tuple(lengths.tolist())

    def check_readers(self, communicator: Communicator) -> None:
        """Raise ValueError unless those who read are those who have the shards."""
        if (communicator.size, communicator.rank) != (len(self.lengths), self.rank):
            raise ValueError(
                f"DataLoader: the Shard of rank {self.rank} of {len(self.lengths)} must be read there, by "
                f"worker_batches, but got rank {communicator.rank} of {communicator.size}"
            )

    @property
    def items(self) -> int:
        """The number of items of all shards."""
        return sum(self.lengths)

    @property
    def may_draw(self) -> bool:
        """Whether to fetch an item may draw random numbers."""
        return may_draw(self.dataset)

    def order(self, seed: int | None) -> HostArray:
        """The order of this shard's items in an epoch with this seed; without one that of the dataset."""
        count = self.lengths[self.rank]
        return np.arange(count) if seed is None else self._stream(seed).permutation(count)

    def parts(self, size: int, first: int, stop: int) -> Iterator[tuple[Part, slice, bool]]:
        """This rank's part of the batches [first, stop) of `size` items.

        With each, its places in the order of this shard, and whether every rank has an item of the batch.
        """
        ends = apportioned(first * size, self.lengths)
        for i in range(first, stop):
            starts, ends = ends, apportioned(min((i + 1) * size, self.items), self.lengths)
            counts = [end - start for start, end in zip(starts, ends, strict=True)]
            before, own = sum(counts[: self.rank]), counts[self.rank]
            part = Part(before, before + own, sum(counts))
            yield part, slice(starts[self.rank], ends[self.rank]), all(counts)

    def take(self, indices: HostArray, seed: int | None) -> Fields:
        """Items of this shard, stacked field by field; with a seed, what is drawn for them is drawn from its stream."""
        if not len(indices):
            return ()
        if seed is None:
            return self.dataset.take(indices)
        with _drawing_from(self._stream(seed, int(indices[0]))):
            return self.dataset.take(indices)

    def _stream(self, seed: int, *numbers: int) -> np.random.Generator:
        """A stream of this rank for an epoch's seed, and for some numbers."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self.rank, *numbers)))


def apportioned(total: int, lengths: Sequence[int]) -> list[int]:
    """How many of the first `total` items of an epoch are each shard's, in proportion to its length.

    Webster's method: item j of a shard of n stands at the place (2 j + 1) / 2n of the epoch, and the first ones are
    taken, those of lower ranks before others at the same place. So no number falls where `total` grows.
    """
    if not total:
        return [0] * len(lengths)
    whole, multiple = sum(lengths), math.lcm(*(length for length in lengths if length))
    counts = [(2 * total * length + whole) // (2 * whole) for length in lengths]  # all up to the place total / whole
    step = 1 if sum(counts) < total else -1
    heap = [
        (step * (2 * count + step) * (multiple // length), step * rank, length)
        for rank, (count, length) in enumerate(zip(counts, lengths, strict=True))
        if length
    ]
    heapify(heap)
    for _ in range(abs(total - sum(counts))):
        place, signed_rank, length = heap[0]
        counts[step * signed_rank] += step
        heapreplace(heap, (place + 2 * (multiple // length), signed_rank, length))
    return counts


@contextmanager
def _drawing_from(stream: np.random.Generator) -> Iterator[None]:
    """Let NumPy's global functions draw other numbers until the block ends."""
    before = get_rng_state()
    try:
        np.random.seed(stream.integers(1 << 32, size=4, dtype="uint32"))
        yield
    finally:
        set_rng_state(before)


class Scattered:
    """This rank's fields of a batch of which some rank has no item; a rank without items has no fields."""

    def __init__(self, fields: Fields) -> None:
        self.fields = [field.copy() for field in fields]  # now: the dataset may use their memory again

    def gathered(self, communicator: Communicator) -> tuple[Part | None, HostBatch]:
        """A part of the whole batch, as `Communicator.part_of` cuts it. All ranks must call this at the same time.

        Raises ValueError if items of two ranks do not fit together.
        """
        pieces = [fields for fields in communicator.all_gather_object(self.fields) if fields]
        kinds = {tuple((field.shape[1:], str(field.dtype)) for field in fields) for fields in pieces}
        if len(kinds) > 1:
            raise ValueError(f"DataLoader: shards must agree in shapes and dtypes of items, but got {sorted(kinds)}")
        fields = [np.concatenate(field) for field in zip(*pieces, strict=True)]
        part = communicator.part_of(len(fields[0]))
        kept = slice(None) if part is None else slice(part.start, part.stop)
        return part, HostBatch([field[kept] for field in fields])
