"""Parts of the batches of a loader: put together they are its batches, with the same random draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import needle as ndl
from needle.backend.communicator import Communicator, current_communicator, using
from needle.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    ImageDataset,
    NDArrayDataset,
    RandomCrop,
    Subset,
    worker_batches,
)
from tests.distributed.threads import run_ranks

ITEMS = np.arange(11)
IMAGES = np.random.RandomState(0).rand(11, 3, 5, 5).astype("float32")


class Drawn(Dataset):
    """Items that are random numbers."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return np.random.rand(2), index


class Doubled(DataLoader):
    """Changes the batches that it yields."""

    def __iter__(self):
        for (items,) in super().__iter__():
            yield (items * 2,)


DATASETS = {
    "arrays": lambda: NDArrayDataset(IMAGES, ITEMS),
    "part of two": lambda: Subset(ConcatDataset([*(ImageDataset(IMAGES[:n], ITEMS[:n]) for n in (4, 11))]), ITEMS),
    "transforms": lambda: ImageDataset(IMAGES, ITEMS, transforms=[RandomCrop(1)]),
    "draws of its own": Drawn,
}


def read(loader, seed=None):
    """The parts and the fields of all batches, by this rank."""
    if seed is not None:
        ndl.seed(seed)
    communicator = current_communicator()
    parts = [(communicator.part, [field.numpy() for field in batch]) for batch in worker_batches(loader)]
    assert communicator.part is None
    return parts


class Twin(Communicator):
    """One of two ranks, the other of which has the same."""

    size = 2

    def __init__(self, rank):
        self.rank = rank

    def all_reduce(self, array, wire=None):
        array *= 2

    def broadcast(self, array, root=0):
        pass

    def all_gather(self, array):
        return [array, array]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("name", DATASETS)
def test_the_parts_make_up_the_batches(name, prefetch):
    """Ranks one after the other, since threads share the random stream."""

    def make():
        return DataLoader(DATASETS[name](), 4, shuffle=True, prefetch=prefetch)

    whole = read(make(), seed=3)
    assert [part for part, _ in whole] == [None] * 3
    ranks = [run_ranks_alone(rank, make) for rank in range(2)]
    for batch, ((_, fields), *parts) in enumerate(zip(whole, *ranks, strict=True)):
        sizes = [(part.start, part.stop, part.total) for part, _ in parts]
        assert sizes == ([(0, 2, 4), (2, 4, 4)] if batch < 2 else [(0, 2, 3), (2, 3, 3)])
        for number, field in enumerate(fields):
            np.testing.assert_array_equal(np.concatenate([items[number] for _, items in parts]), field)


def run_ranks_alone(rank, make):
    """What this rank of two reads, with a random stream of its own."""
    with using(Twin(rank)):
        return read(make(), seed=3)


def test_only_the_items_of_the_part_are_fetched_where_nothing_is_drawn(monkeypatch):
    fetched, take = [], NDArrayDataset.take

    def counted(self, indices):
        fetched.append(len(indices))
        return take(self, indices)

    monkeypatch.setattr(NDArrayDataset, "take", counted)
    run_ranks_alone(0, lambda: DataLoader(NDArrayDataset(IMAGES, ITEMS), 8))
    run_ranks_alone(0, lambda: DataLoader(ImageDataset(IMAGES, ITEMS, transforms=[RandomCrop(1)]), 8))
    assert fetched == [4, 2, 8, 3]


def test_batches_of_any_structure_are_cut():
    batches = [{"a": np.arange(5), "b": [ndl.Tensor(np.arange(10).reshape(5, 2)), (np.arange(5) * 2,)]}]

    def read_one(communicator):
        ((batch),) = worker_batches(batches)
        return batch

    first, second = run_ranks(2, read_one)
    assert (first["a"].tolist(), second["a"].tolist()) == ([0, 1, 2], [3, 4])
    assert second["b"][0].numpy().tolist() == [[6, 7], [8, 9]]
    assert isinstance(first["b"][1], tuple)
    assert second["b"][1][0].tolist() == [6, 8]


def test_a_loader_with_an_iter_of_its_own_is_cut():
    ranks = run_ranks(2, lambda communicator: read(Doubled(NDArrayDataset(ITEMS), 6)))
    assert [[items.tolist() for _, (items,) in parts] for parts in ranks] == [
        [[0, 2, 4], [12, 14, 16]],
        [[6, 8, 10], [18, 20]],
    ]


class Pair(NamedTuple):
    inputs: np.ndarray
    targets: np.ndarray


def test_named_tuples_keep_their_names():
    def read_one(communicator):
        (batch,) = worker_batches([Pair(np.arange(4), np.arange(4) * 2)])
        return batch

    _, second = run_ranks(2, read_one)
    assert isinstance(second, Pair)
    assert (second.inputs.tolist(), second.targets.tolist()) == ([2, 3], [4, 6])


def test_fewer_items_than_ranks_go_to_all_of_them_as_a_whole():
    ranks = run_ranks(3, lambda communicator: read(DataLoader(NDArrayDataset(np.arange(5)), 3)))
    for parts in ranks:
        assert parts[0][0].total == 3
        part, (items,) = parts[1]
        assert part is None
        assert items.tolist() == [3, 4]


def test_a_loader_goes_on_from_its_state_with_parts():
    def read_two(communicator):
        loader = DataLoader(NDArrayDataset(ITEMS), 4, shuffle=True, seed=1)
        next(iter(loader))
        resumed = DataLoader(NDArrayDataset(ITEMS), 4, shuffle=True, seed=1)
        resumed.load_state_dict(loader.state_dict())
        return read(resumed), loader._epoch.order

    (first, order), (second, _) = run_ranks(2, read_two)
    items = [np.concatenate([a[0], b[0]]) for (_, a), (_, b) in zip(first, second, strict=True)]
    assert [chunk.tolist() for chunk in items] == [order[4:8].tolist(), order[8:].tolist()]


@pytest.mark.parametrize("make", [lambda: [ITEMS], lambda: DataLoader(NDArrayDataset(ITEMS), 11)])
def test_batches_that_were_left_do_not_end_the_part_of_others(make):
    """They may be closed at any time, with the error that has kept them."""

    def work(communicator):
        left = worker_batches(make())
        next(left)
        for _ in worker_batches(make()):
            left.close()
            assert communicator.part == communicator.part_of(11)
        assert communicator.part is None

    run_ranks(2, work)


def other(make):
    """Two ranks, each with a loader that `make(rank)` returns."""
    return run_ranks(2, lambda communicator: list(worker_batches(make(communicator.rank))))


def shuffled(rank):
    return DataLoader(NDArrayDataset(ITEMS), 4, shuffle=True, seed=rank)


def left(rank):
    loader = DataLoader(NDArrayDataset(ITEMS), 4)
    loader.load_state_dict(loader.state_dict() | {"position": rank})
    return loader


SAME = "DataLoader: all ranks must have the same "

ERRORS = [
    (
        lambda: other(lambda rank: DataLoader(NDArrayDataset(ITEMS[: 11 - rank]), 4)),
        ValueError,
        SAME + "number of items, but rank 1 has 10, and rank 0 has 11",
    ),
    (
        lambda: other(lambda rank: DataLoader(NDArrayDataset(ITEMS), 4 + rank)),
        ValueError,
        SAME + "batch_size, but rank 1 has 5, and rank 0 has 4",
    ),
    (lambda: other(shuffled), ValueError, SAME + "order of items (its checksum), but rank 1 has"),
    (
        lambda: other(lambda rank: DataLoader(Subset(NDArrayDataset(ITEMS), range(rank, 10, 2)), 4)),
        ValueError,
        SAME + "Subset, unless it is in a Shard (checksum of its indices), but rank 1 has",
    ),
    (lambda: other(left), ValueError, SAME + "number of batches that are done, but rank 1 has 1, and rank 0 has 0"),
    (
        lambda: other(lambda rank: [(ITEMS,), (ITEMS[rank:],)]),
        ValueError,
        "worker_batches: all ranks must have the same number of items in its batches, but rank 1 has 21",
    ),
    (
        lambda: run_ranks(2, lambda communicator: list(worker_batches([(np.zeros((3, 4)), np.zeros(12))]))),
        ValueError,
        "worker_batches: arrays of a batch must agree in their number of items, but got [3, 12]",
    ),
    (
        lambda: run_ranks(2, lambda communicator: list(worker_batches([(np.zeros(3), "names")]))),
        TypeError,
        "worker_batches: a batch must hold arrays with an axis of items, but got str",
    ),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[2].split()[1])
def test_errors(row):
    call, kind, message = row
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).startswith(message)
