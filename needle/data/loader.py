"""The loader: batches of tensors from a dataset, in order or shuffled, optionally prepared ahead by a thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, cast
from zlib import crc32

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, HostArray, default_device
from needle.backend.communicator import Alone, Communicator, Part, require_alike
from needle.data import generator
from needle.data.ahead import read_ahead
from needle.data.dataset import Dataset
from needle.data.feed import Feed, Fields, HostBatch, RowsFeed, SentBatch, feed_of
from needle.data.parts import Subset, may_draw
from needle.data.rows import Resident, to_float32
from needle.data.sampler import Sampler
from needle.data.shard import Scattered, Shard
from needle.data.transforms import BatchTransform, Compose
from needle.data.transforms.base import check_batch_transforms, draw

__all__ = ["DataLoader"]

SEEDS = 1 << 63  # the number of seeds of an epoch

Prepared = HostBatch | SentBatch | Scattered  # a batch on its way to the reader


class Batch(tuple[Tensor, ...]):
    """The fields of a batch. Two batches are equal if they are the same object: tensors compare by element."""

    __slots__ = ()
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__


class DataLoader:
    """Batches of `dataset`: tuples of tensors (B, ...), one per field of an item, that require no gradient.

    Every `iter(loader)` begins a new epoch; after `load_state_dict`, the next one goes on with the epoch of the state.
    Floats become float32, integers keep their dtype. The last batch may be smaller than `batch_size`; `drop_last` omits
    it. Options that are set later hold from the next epoch.

    Shuffling draws one `np.random.permutation(len(dataset))` per epoch from NumPy's global generator. With a `seed` the
    loader has its own generator, and the same seed produces the same sequence of orders. A `sampler` takes the place of
    shuffling: anything with a length that yields indices, all of an epoch when it begins. It has its own seed, if any.

    `transforms` change whole batches, in order: a list of `RandomCrop`, `Normalize` and their like. If they draw random
    numbers, a seed for them is drawn when an epoch begins, after its order and from the same generator. Every batch has
    its own numbers, of that seed and its place in the epoch. So they are the same for any `prefetch`, for workers, and
    in an epoch that goes on from a state.

    `prefetch` is the number of batches that a background thread prepares ahead. The default is 0, no thread: transforms
    of the *dataset* draw from NumPy's global generator, and with a thread the order of these draws and of the model's
    own (dropout) depends on timing. So with random ones leave it at 0 if a run must be repeatable, or go on bit for bit
    from a state; without them both hold for any `prefetch`. An error in the thread is raised by the `next()` that asked
    for its batch. Leaving the loop early stops the thread. A forked process has no such thread: it must begin an epoch
    of its own.

    Batches of float images (four axes or more) are stored batch-last, the memory order of convolutions. Their shape
    stays (B, ...), and `numpy()` returns a row-major copy as always.

    A GPU computes while batches are on their way to it, each in one transfer. Items of a `PixelDataset` without
    transforms, but for `Normalize`, are sent as bytes. If these, or the arrays of an `NDArrayDataset` without
    transforms, take less than a quarter of the free memory, they are sent once and stay there, and of a batch only the
    indices are sent. So such arrays must not change after the first epoch; `reset` sends them again.

    Of a `Shard`, which only this rank has, the items make up batches with those of the other ranks' shards.

    Raises TypeError if `dataset` is neither a Dataset nor a Shard, `shuffle` or `drop_last` not a bool, `device` not a
    Device, `sampler` has no length, or `transforms` is not a list of transforms of batches, and ValueError if
    `batch_size` is less than 1, `prefetch` or `seed` is negative, or a sampler comes with `shuffle`, with a Shard, or
    with a `seed` that no transform needs. Errors of the dataset, the sampler and the transforms pass through.

    >>> from needle.data import NDArrayDataset
    >>> loader = DataLoader(NDArrayDataset(np.zeros((5, 3)), np.arange(5)), batch_size=2)
    >>> [(images.shape, labels.numpy().tolist()) for images, labels in loader]
    [((2, 3), [0, 1]), ((2, 3), [2, 3]), ((1, 3), [4])]
    """

    dataset: Dataset | Shard
    batch_size: int
    shuffle: bool
    drop_last: bool
    prefetch: int
    device: Device | None
    sampler: Sampler | None
    transforms: tuple[BatchTransform, ...]

    def __init__(
        self,
        dataset: Dataset | Shard,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        prefetch: int = 0,
        device: Device | None = None,
        sampler: Sampler | None = None,
        transforms: Sequence[BatchTransform] = (),
    ) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.drop_last, self.prefetch, self.device, self.sampler = drop_last, prefetch, device, sampler
        self.transforms = cast(tuple[BatchTransform, ...], transforms)
        if seed is not None and sampler is not None and not self._draws:
            raise ValueError(
                "DataLoader: seed is for shuffle and random transforms, and a sampler has its own, "
                f"but got both and seed={seed}"
            )
        self._generator = generator.from_seed("DataLoader", seed)
        self._number = 0  # of the running epoch, or of the next one
        self._epoch: _Epoch | None = None  # the running one
        self._is_loaded = False  # the next `iter` goes on with the running epoch
        self._resident: Resident | None = None  # the dataset's arrays on the device, if they stay there

    def __setattr__(self, name: str, value: Any) -> None:
        value = _OPTIONS[name](value) if name in _OPTIONS else value
        if name in ("dataset", "shuffle", "sampler"):
            options = self.__dict__ | {name: value}
            if options.get("sampler") is not None and options["shuffle"]:
                raise ValueError("DataLoader: shuffle must be False with a sampler, but got True")
            if options.get("sampler") is not None and isinstance(options["dataset"], Shard):
                raise ValueError("DataLoader: sampler must be None with a Shard, but got one")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._batches(self._length, self.batch_size)

    @property
    def _shard(self) -> Shard | None:
        return self.dataset if isinstance(self.dataset, Shard) else None

    @property
    def _draws(self) -> bool:
        """Whether an epoch has a seed: for its transforms, or for what the dataset of a shard draws."""
        shard = self._shard
        return bool(Compose(self.transforms).draws) or (shard is not None and shard.may_draw)

    @property
    def _items(self) -> int:
        """The number of items of the dataset, or of all shards."""
        return self.dataset.items if isinstance(self.dataset, Shard) else len(self.dataset)

    @property
    def _length(self) -> int:
        """The number of items in an epoch."""
        return self._items if self.sampler is None else len(self.sampler)

    def _batches(self, length: int, size: int) -> int:
        """The number of batches of `size` in an epoch of `length` items."""
        full, remainder = divmod(length, size)
        return full if self.drop_last else full + bool(remainder)

    def __iter__(self) -> Generator[tuple[Tensor, ...]]:
        return self.parts(Alone())

    def parts(self, communicator: Communicator) -> Generator[tuple[Tensor, ...]]:
        """Begin an epoch of which a rank gets its items of every batch; `communicator.part` is set to name them.

        All ranks must have the same loader, in the same state, which they compare. Where the dataset may draw random
        numbers, every rank takes the whole batch and keeps its part. Each may have a shard of its own.
        """
        shard = self._shard
        if shard is not None:
            shard.check_readers(communicator)
        epoch, transform = self._epoch if self._is_loaded else None, Compose(self.transforms)
        if epoch is None:
            epoch = _Epoch(self._draw_order(), self.batch_size)
            self._number += self._epoch is not None  # that one was left before its end
        if epoch.seed is None and self._draws:
            epoch.seed = self._draw_seed()
        self._epoch, self._is_loaded = epoch, False
        count = self._batches(self._length, epoch.batch_size)
        if communicator.size > 1:
            values = {"number of batches": count, "number of items": self._length, "batch_size": epoch.batch_size}
            values |= {"number of batches that are done": epoch.position}
            if isinstance(epoch.order, np.ndarray):
                values["order of items (its checksum)"] = crc32(epoch.order.data)
            if isinstance(self.dataset, Subset):
                values["Subset, unless it is in a Shard (checksum of its indices)"] = crc32(self.dataset.indices.data)
            require_alike("DataLoader", communicator, values)
        if shard is None:
            prepared = self._parts_of_batches(epoch, count, transform, communicator)
        else:
            prepared = self._parts_of_shards(epoch, count, transform, shard)
        return self._tensors(read_ahead(prepared, self.prefetch) if self.prefetch else prepared, epoch, communicator)

    def _parts_of_batches(
        self, epoch: _Epoch, count: int, transform: Compose, communicator: Communicator
    ) -> Generator[tuple[Part | None, Prepared]]:
        """What is left of an epoch, in parts, on their way to the device."""
        dataset, size = cast(Dataset, self.dataset), epoch.batch_size
        order, feed = np.arange(len(dataset)) if epoch.order is None else epoch.order, self._feed(dataset)
        for i in range(epoch.position, count):
            indices = order[i * size : (i + 1) * size]
            part = communicator.part_of(len(indices))
            kept = slice(None) if part is None else slice(part.start, part.stop)
            if isinstance(feed, RowsFeed):
                yield part, feed.take(indices[kept])
                continue
            early, late = (slice(None), kept) if transform.mixes else (kept, slice(None))
            if may_draw(dataset):
                fields = tuple(field[early] for field in dataset.take(indices))
            else:
                fields = dataset.take(indices[early])
            fields = _transformed(fields, transform, epoch.numbers(i, len(indices), transform.draws)[early])
            yield part, feed.hold(tuple(field[late] for field in fields))

    def _parts_of_shards(
        self, epoch: _Epoch, count: int, transform: Compose, shard: Shard
    ) -> Generator[tuple[Part | None, Prepared]]:
        """What is left of an epoch, in parts that consist of this rank's items, on their way to the device."""
        order, feed = shard.order(epoch.order), self._feed(shard.dataset)
        seed = epoch.seed if shard.may_draw and not self.prefetch else None
        parts = shard.parts(epoch.batch_size, epoch.position, count)
        for i, (part, places, is_everywhere) in enumerate(parts, epoch.position):
            indices = order[places]
            if is_everywhere and isinstance(feed, RowsFeed):
                yield part, feed.take(indices)
                continue
            fields = shard.take(indices, seed)
            if fields:
                numbers = epoch.numbers(i, part.total, transform.draws)
                fields = _transformed(fields, transform, numbers[part.start : part.stop])
            yield part, feed.hold(fields) if is_everywhere and isinstance(feed, Feed) else Scattered(fields)

    def _feed(self, dataset: Dataset) -> Feed | RowsFeed:
        """How the batches of an epoch get to the device."""
        feed = feed_of(dataset, self.transforms, self.device or default_device(), self.prefetch)
        self._resident = getattr(feed, "resident", None)  # for the next epoch, too
        return feed

    def reset(self) -> None:
        """Leave what is left of the running epoch, also of one that was loaded: the next `iter` begins a new one.

        Arrays of the dataset that stay on a GPU are sent again by then.
        """
        self._number += self._epoch is not None
        self._epoch, self._is_loaded, self._resident = None, False, None

    def _draw_seed(self) -> int:
        return int(self._generator.integers(SEEDS) if self._generator else np.random.randint(SEEDS, dtype=np.int64))

    def _draw_order(self) -> HostArray | int | None:
        """The order of a new epoch; None is the dataset's. With a shard, the seed of the orders of all shards."""
        if self.sampler is not None:
            return self._checked_order("DataLoader", "sampler", list(self.sampler))
        if not self.shuffle:
            return None
        if self._shard is not None:
            return self._draw_seed()
        order: HostArray = (self._generator or np.random).permutation(self._items)
        return order

    def _checked_order(self, op: str, name: str, order: Any) -> HostArray | int:
        """An order of an epoch as an array of indices of the dataset, or the seed of those of the shards."""
        if self._shard is not None:
            seed: int = check.integer(op, name, order, least=0)
            return seed
        given, length, items = np.asarray(order), self._length, self._items
        if given.shape != (length,) or (length and given.dtype.kind not in "iu"):
            raise ValueError(f"{op}: {name} must hold {length} integers, but got {given.dtype} of shape {given.shape}")
        for wrong in given[(given < 0) | (given >= items)][:1]:
            raise ValueError(f"{op}: {name} must hold indices of the dataset, 0 to {items - 1}, but got {wrong}")
        return given.astype(np.int64)

    def _tensors(
        self,
        batches: Generator[tuple[Part | None, Prepared]],
        epoch: _Epoch,
        communicator: Communicator,
    ) -> Generator[tuple[Tensor, ...]]:
        """The batches as tensors on the loader's device, made in the reader's thread, so that its modes apply."""
        with closing(batches):
            for part, batch in batches:
                if isinstance(batch, Scattered):
                    part, batch = batch.gathered(communicator)
                tensors = Batch(batch.tensors(self.device or default_device()))
                communicator.part = part
                epoch.position += 1
                yield tensors
        if self._epoch is epoch:
            self._number, self._epoch = self._number + 1, None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, as plain data: all that `load_state_dict` needs to go on from here, batch for batch.

        `epoch` is the number of the running epoch, from 0; between epochs that of the next one. `position` counts the
        batches of the running epoch that the reader has got; those that are only prefetched do not count. `order` holds
        the indices of its items, or None where they come in order, and between epochs. `generator` is the state of the
        loader's own generator, if it has a seed, and `sampler` that of a sampler with a `state_dict`. A random sampler
        without one, such as torch's, goes on with other orders after the running epoch. NumPy's global generator is not
        included.

        The running epoch is the one that began last, up to the end of its iterator: also after `break`, and if an
        earlier epoch is still being read.

        Where transforms draw random numbers, `transforms` is the seed of the running epoch, or None between epochs.

        With a `Shard`, `shards` holds the lengths of all of them, `order` is the seed of their orders, and `transforms`
        is also there for what its dataset draws. So the state is that of every rank.
        """
        epoch = self._epoch or _Epoch(None, self.batch_size)
        sampler = cast(Any, self.sampler)
        return {
            "epoch": self._number,
            "position": epoch.position,
            "order": epoch.order.copy() if isinstance(epoch.order, np.ndarray) else epoch.order,
            "batch_size": epoch.batch_size,
            "length": self._items,
            "generator": generator.get_state(self._generator),
            "sampler": sampler.state_dict() if hasattr(sampler, "state_dict") else None,
            **({"transforms": epoch.seed} if self._draws else {}),
            **({} if self._shard is None else {"shards": [*self._shard.lengths]}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next `iter(loader)` yields the batches that were left of its epoch.

        An epoch that is being read goes on, and is no part of the loader's state any more.

        Raises TypeError or ValueError, before anything changes, if `state` is not from `state_dict`, if the dataset has
        another length, or all shards together, or if `shuffle`, `sampler`, the presence of a `seed` or of random
        transforms or, within an epoch, `batch_size` or the length of a shard differs from that loader's.

        >>> from needle.data import NDArrayDataset
        >>> def make():
        ...     return DataLoader(NDArrayDataset(np.arange(6)), 2)
        >>> loader, resumed = make(), make()
        >>> batch = next(iter(loader))
        >>> resumed.load_state_dict(loader.state_dict())
        >>> [labels.numpy().tolist() for (labels,) in resumed]
        [[2, 3], [4, 5]]
        """
        op = "DataLoader"
        values = check.entries(op, "state", state, self.state_dict())
        number, position = (check.integer(op, name, values[name], least=0) for name in ("epoch", "position"))
        check.same(op, "length", values["length"], self._items, ("the dataset of the state", "this dataset"))
        order, sampler, epoch = values["order"], cast(Any, self.sampler), None
        is_shuffled, has_state = self.shuffle or sampler is not None, hasattr(sampler, "load_state_dict")
        is_other = position > 0 and order is None if is_shuffled else order is not None
        if is_other or has_state == (values["sampler"] is None):
            raise ValueError(f"{op}: shuffle and sampler must be as they were for the state, but got others")
        seed, is_running = values.get("transforms"), order is not None or position > 0
        if seed is not None or (is_running and "transforms" in values):
            seed, is_running = check.integer(op, "transforms", seed, least=0), True
        if is_running:
            order = None if order is None else self._checked_order(op, "order", order)
            names = ("the state", "the loader, within an epoch,")
            check.same(op, "batch_size", values["batch_size"], self.batch_size, names)
            if position and self._shard is not None:
                lengths, names = [*self._shard.lengths], ("the shards of the state", "these, within an epoch,")
                check.same(op, "lengths", values["shards"], lengths, names)
            if position > (count := len(self)):
                raise ValueError(f"{op}: position must be at most {count}, the number of batches, but got {position}")
            epoch = _Epoch(order, self.batch_size, position, seed)
        stream = generator.from_state(op, values["generator"], self._generator)
        if has_state:
            sampler.load_state_dict(values["sampler"])
        self._generator, self._number, self._epoch, self._is_loaded = stream, number, epoch, True


class _Epoch:
    """An epoch: the order of its items (None for the dataset's; for shards a seed), how many batches its reader has
    got, its seed."""

    __slots__ = ("batch_size", "order", "position", "seed")

    def __init__(self, order: Any, batch_size: int, position: int = 0, seed: int | None = None) -> None:
        self.order, self.batch_size, self.position, self.seed = order, batch_size, position, seed

    def numbers(self, batch: int, count: int, draws: int) -> HostArray:
        """The random numbers (count, draws) of a batch's transforms."""
        return draw(draws, count, np.random.default_rng(cast(Any, [self.seed, batch])) if draws else None)


def _transformed(fields: Fields, transform: Compose, numbers: HostArray) -> Fields:
    """Fields of a batch after its transforms; floats become float32."""
    fields = tuple(map(to_float32, fields))
    return tuple(map(to_float32, transform.apply(fields, numbers))) if transform.transforms else fields


_OPTIONS: dict[str, Callable[[Any], Any]] = {  # the check of each, whenever it is set
    "dataset": lambda value: (
        value if isinstance(value, Shard) else check.instance("DataLoader", "dataset", value, Dataset)
    ),
    "batch_size": lambda value: check.integer("DataLoader", "batch_size", value, least=1),
    "shuffle": lambda value: check.instance("DataLoader", "shuffle", value, bool),
    "drop_last": lambda value: check.instance("DataLoader", "drop_last", value, bool),
    "prefetch": lambda value: check.integer("DataLoader", "prefetch", value, least=0),
    "device": lambda value: value if value is None else check.instance("DataLoader", "device", value, Device),
    "sampler": lambda value: value if value is None else check.instance("DataLoader", "sampler", value, Sampler),
    "transforms": lambda value: check_batch_transforms("DataLoader", value),
}
