"""Shards: items that only one rank has make up batches with those of the others, each item once."""

from __future__ import annotations

import pickle
from fnmatch import fnmatchcase
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import needle as ndl
from needle.backend.communicator import current_communicator
from needle.data import (
    DataLoader,
    Dataset,
    MixUp,
    NDArrayDataset,
    Normalize,
    RandomFlipHorizontal,
    Shard,
    Subset,
    WeightedRandomSampler,
    loader,
    worker_batches,
)
from needle.data.feed import HostBatch, RowsFeed
from needle.data.shard import Scattered, apportioned
from needle.distributed import launch
from tests.distributed.conftest import streams as streams
from tests.distributed.threads import in_python, in_shared_memory, run_ranks

SHARDS = [(5, 5), (7, 3), (4, 5, 3), (9, 1, 2), (6, 0, 5), (1, 1, 1, 1), (0, 0, 3, 8)]


def items_of(lengths):
    """The numbers of the items of each shard."""
    return np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])


def images_of(numbers):
    """Images from which the numbers can be read."""
    return numbers[:, None, None, None] + np.arange(4).reshape(1, 1, 2, 2) / 8


def loader_of(lengths, communicator, size=4, **options):
    numbers = items_of(lengths)[communicator.rank]
    return DataLoader(Shard(NDArrayDataset(images_of(numbers), numbers)), size, **options)


def read(loader):
    """The part and the fields of each batch, by this rank."""
    communicator = current_communicator()
    return [(communicator.part, [field.numpy() for field in batch]) for batch in worker_batches(loader)]


def labels_of_batches(ranks):
    """The numbers of the items of each batch, from what the ranks have read; each is checked to be an image's."""
    batches = []
    for parts in zip(*ranks, strict=True):
        labels = [fields[1] for _, fields in parts]
        assert all(len(each) for each in labels)
        for _, (images, numbers) in parts:
            np.testing.assert_array_equal(images, images_of(numbers).astype("float32"))
        if parts[0][0] is None:
            assert all(
                part is None and each.tolist() == labels[0].tolist()
                for (part, _), each in zip(parts, labels, strict=True)
            )
            assert len(labels[0]) < len(parts) or len(parts) == 1
            batches.append(labels[0])
        else:
            stops = np.cumsum([0, *map(len, labels)])
            places = [(part.start, part.stop, part.total) for part, _ in parts]
            assert places == [(start, stop, stops[-1]) for start, stop in pairwise(stops)]
            batches.append(np.concatenate(labels))
    return batches


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("lengths", SHARDS, ids=str)
def test_each_item_is_read_once(lengths, shuffle, prefetch, streams):
    def rank(communicator):
        loader = loader_of(lengths, communicator, shuffle=shuffle, prefetch=prefetch)
        result = [read(loader) for _ in range(2)]
        return len(loader), result, streams.stream.rand()

    counts, epochs, after = zip(*run_ranks(len(lengths), rank), strict=True)
    assert len({*after}) == 1, "the random streams went apart"
    first, second = (labels_of_batches(ranks) for ranks in zip(*epochs, strict=True))
    total = sum(lengths)
    for batches in (first, second):
        assert sorted(np.concatenate(batches).tolist()) == [*range(total)]
        assert [len(batch) for batch in batches] == [4] * (total // 4) + [total % 4] * bool(total % 4)
        assert {*counts} == {len(batches)}
    assert (np.concatenate(first).tolist() == np.concatenate(second).tolist()) == (not shuffle or total < 5)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6).filter(any), st.integers(1, 70))
def test_batches_take_from_each_shard_in_proportion(lengths, size):
    items, before = sum(lengths), [0] * len(lengths)
    for total in [*range(size, items, size), items]:
        counts = apportioned(total, lengths)
        assert sum(counts) == total
        for count, earlier, length in zip(counts, before, lengths, strict=True):
            assert earlier <= count <= length
            assert abs(count - total * length / items) <= (1 + len(lengths) * length / items) / 2
        before = counts
    assert before == lengths


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any))
@example([1, 1, 1, 5, 8])  # of one shard two items less than its share
def test_items_are_taken_by_their_places(lengths):
    places = sorted((Fraction(2 * j + 1, 2 * n), rank) for rank, n in enumerate(lengths) for j in range(n))
    for total in range(len(places) + 1):
        ranks = [rank for _, rank in places[:total]]
        assert apportioned(total, lengths) == [ranks.count(rank) for rank in range(len(lengths))]


def test_one_process_has_one_shard():
    loader = DataLoader(Shard(NDArrayDataset(np.arange(5))), 2, shuffle=True, seed=3)
    batches = [items.numpy() for (items,) in loader]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    order = np.concatenate(batches).tolist()
    assert sorted(order) == [*range(5)] != order


def test_of_nothing_there_is_no_batch():
    assert run_ranks(2, lambda communicator: read(loader_of((0, 0), communicator))) == [[], []]


def test_the_last_batch_may_be_dropped():
    def rank(communicator):
        loader = loader_of((4, 5), communicator, drop_last=True)
        return len(loader), read(loader)

    (count, first), (_, second) = run_ranks(2, rank)
    assert count == 2
    assert [len(batch) for batch in labels_of_batches([first, second])] == [4, 4]


def test_shards_are_shuffled_differently():
    def rank(communicator):
        numbers = np.arange(8)
        return read(DataLoader(Shard(NDArrayDataset(images_of(numbers), numbers)), 16, shuffle=True, seed=1))

    ((_, (_, first)),), ((_, (_, second)),) = run_ranks(2, rank)
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()


def test_transforms_draw_for_the_whole_batch():
    """A part is moved as it would be in the whole batch."""
    numbers = np.arange(10)

    def rank(communicator):
        return read(loader_of((4, 6), communicator, 10, seed=2, transforms=[RandomFlipHorizontal(), Normalize(1, 2)]))

    whole = DataLoader(
        NDArrayDataset(images_of(numbers), numbers), 10, seed=2, transforms=[RandomFlipHorizontal(), Normalize(1, 2)]
    )
    ((images, _),) = whole
    ((_, (first, _)),), ((_, (second, _)),) = run_ranks(2, rank)
    np.testing.assert_array_equal(np.concatenate([first, second]), images.numpy())


def test_images_are_mixed_with_those_of_the_rank():
    def rank(communicator):
        loader = loader_of((5, 4), communicator, 8, seed=1, transforms=[MixUp(9)])
        return [(part, targets) for part, (_, targets) in read(loader)]

    first, second = run_ranks(2, rank)
    assert not first[0][1][:, 5:].any()
    assert not second[0][1][:, :5].any()
    assert [len(targets) for _, targets in second] == [4, 1]  # the last batch went to both of them


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_an_epoch_goes_on_from_the_first_ranks_state(stop, prefetch, streams):
    def rank(communicator):
        def make():
            return loader_of(
                (9, 1, 4), communicator, shuffle=True, prefetch=prefetch, transforms=[RandomFlipHorizontal()]
            )

        loader = make()
        batches = worker_batches(loader)
        for _ in range(stop):
            next(batches)
        state = pickle.dumps((loader.state_dict(), streams.stream.get_state()))
        rest = [[field.numpy().tolist() for field in batch] for batch in batches]
        states = communicator.all_gather(np.frombuffer(state, "uint8"))
        resumed = make()
        state, stream = pickle.loads(states[0].tobytes())
        resumed.load_state_dict(state)
        streams.stream.set_state(stream)
        assert [[field.numpy().tolist() for field in batch] for batch in worker_batches(resumed)] == rest
        assert resumed.state_dict()["epoch"] == 1
        return len(rest)

    assert {*run_ranks(3, rank)} == {4 - stop}


def test_between_epochs_the_number_of_shards_may_change():
    def rank(lengths):
        def work(communicator):
            loader = loader_of(lengths, communicator, shuffle=True, seed=4)
            loader.load_state_dict(state)
            return loader._number, read(loader)

        return work

    def first(communicator):
        loader = loader_of((5, 4), communicator, shuffle=True, seed=4)
        read(loader)
        return loader.state_dict()

    state, _ = run_ranks(2, first)
    numbers, ranks = zip(*run_ranks(3, rank((3, 3, 3))), strict=True)
    assert numbers == (1, 1, 1)
    assert sorted(np.concatenate(labels_of_batches(ranks)).tolist()) == [*range(9)]


class Drawn(Dataset):
    """Items that are random numbers."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return np.random.rand(), index


def draw_in_two_epochs(prefetch):
    """All batches, those that a loader in the same state yields, and a number of the global stream, of each rank."""
    loader, runs = DataLoader(Shard(Drawn()), 4, shuffle=True, prefetch=prefetch), []
    before = ndl.get_rng_state()
    for _ in range(2):
        ndl.set_rng_state(before)
        runs.append([fields[0] for _ in range(2) for _, fields in read(loader)])
    flat = [np.concatenate(run) for run in runs]
    after = np.random.rand()
    return current_communicator().all_gather(np.array([[*flat[0], *flat[1], after]]))


def test_what_the_dataset_draws_is_the_ranks_own():
    (first,), (second,) = launch(draw_in_two_epochs, 2, (0,))
    assert first[-1] == second[-1]
    for drawn in (first, second):
        epochs, again = drawn[:12], drawn[12:24]
        np.testing.assert_array_equal(epochs, again)
        assert len({*epochs}) == 12
    assert not {*first[:-1]} & {*second[:-1]}


def test_what_is_read_ahead_is_drawn_from_the_global_stream():
    """Which must not be exchanged while the program draws from it in its own thread."""
    loader = DataLoader(Shard(Drawn()), 6, seed=1, prefetch=1)
    np.random.seed(5)
    ((drawn, _),) = loader
    np.testing.assert_array_equal(drawn.numpy(), np.random.RandomState(5).rand(6).astype("float32"))


class DrawnIfAny(Drawn):
    """Random numbers, of a given number of items, that are never asked for none."""

    def __init__(self, length):
        super().__init__()
        self.length = length

    def __len__(self):
        return self.length

    def take(self, indices):
        assert len(indices), "there is nothing to take"
        return super().take(indices)


@pytest.mark.parametrize("shuffle", [False, True])
def test_nothing_is_taken_from_a_shard_without_items(shuffle):
    def rank(communicator):
        loader = DataLoader(Shard(DrawnIfAny((0, 2, 4)[communicator.rank])), 3, shuffle=shuffle)
        return [len(fields[0]) for _, fields in read(loader)]

    assert run_ranks(3, rank) == [[1, 1]] * 3


class Reusing(NDArrayDataset):
    """Uses the memory of its items again."""

    def take(self, indices):
        for memory, array in zip(self.memory, self.arrays, strict=True):
            memory[: len(indices)] = array[indices]
        return tuple(memory[: len(indices)] for memory in self.memory)


def test_memory_of_items_may_be_used_again():
    def rank(communicator):
        numbers = items_of((6, 1, 3))[communicator.rank]
        dataset = Reusing(images_of(numbers), numbers)
        dataset.memory = [np.empty_like(images_of(np.arange(4))), np.empty(4, int)]
        return read(DataLoader(Shard(dataset), 3, prefetch=3))

    batches = labels_of_batches(run_ranks(3, rank))  # checks that images are those of the labels
    assert sorted(np.concatenate(batches).tolist()) == [*range(10)]


class Gathering(RowsFeed):
    """Stands for rows of a dataset that are gathered on a GPU."""

    def __init__(self, dataset, *others):
        self.dataset = dataset

    def take(self, indices):
        return HostBatch(self.dataset.take(indices))


def test_rows_on_a_device(monkeypatch):
    """Only batches that go to all ranks are read on the host."""
    monkeypatch.setattr(loader, "feed_of", Gathering)
    batches = labels_of_batches(run_ranks(2, lambda communicator: read(loader_of((5, 4), communicator))))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert sorted(np.concatenate(batches).tolist()) == [*range(9)]


def test_items_of_all_dtypes_reach_the_others():
    """By needle's own engine, that takes arrays of numbers."""
    kinds = [np.float16, np.float64, np.int8, np.uint64, np.bool_]

    def rank(communicator):
        length = 2 * communicator.rank
        arrays = [np.arange(3 * length).reshape(length, 3).astype(kind) for kind in kinds]
        return [
            [field.numpy() for field in batch]
            for batch in worker_batches(DataLoader(Shard(NDArrayDataset(*arrays)), 2))
        ]

    ((first,), (second,)) = run_ranks(2, rank, in_shared_memory)
    for kind, one, two in zip(kinds, first, second, strict=True):
        expected = np.arange(6).reshape(2, 3).astype(kind)
        assert one.dtype == two.dtype == ("float32" if expected.dtype.kind == "f" else kind)
        np.testing.assert_array_equal(np.concatenate([one, two]), expected)


def in_ranks(call):
    return run_ranks(2, call)


def read_in_ranks(loader):
    return in_ranks(lambda communicator: read(loader))


ERRORS = [
    (lambda: Shard([1, 2]), TypeError, "Shard: dataset must be a Dataset, but got list"),
    (lambda: DataLoader([1, 2]), TypeError, "DataLoader: dataset must be a Dataset, but got list"),
    (lambda: Subset(Shard(NDArrayDataset([1])), [0]), TypeError, "Subset: dataset must be a Dataset, but got Shard"),
    (lambda: DataLoader(Shard(NDArrayDataset([1])), sampler=WeightedRandomSampler([1], 1)), ValueError,
     "DataLoader: sampler must be None with a Shard, but got one"),
    (lambda: setattr(DataLoader(NDArrayDataset([1]), sampler=[0]), "dataset", Shard(NDArrayDataset([1]))), ValueError,
     "DataLoader: sampler must be None with a Shard, but got one"),
    (lambda: in_ranks(lambda communicator: list(loader_of((2, 3), communicator))), ValueError,
     "DataLoader: the Shard of rank * of 2 must be read there, by worker_batches, but got rank 0 of 1"),
    (lambda: read_in_ranks(DataLoader(Shard(NDArrayDataset([1])))), ValueError,
     "DataLoader: the Shard of rank 0 of 1 must be read there, by worker_batches, but got rank * of 2"),
    (lambda: in_ranks(lambda communicator: [loader_of((2, 3), communicator).dataset.check_readers(other)
                                            for other in in_python(2) if other.rank != communicator.rank]), ValueError,
     "DataLoader: the Shard of rank * of 2 must be read there, by worker_batches, but got rank * of 2"),
    (lambda: in_ranks(lambda communicator: Scattered((np.zeros((1, communicator.rank)),)).gathered(communicator)),
     ValueError,
     "DataLoader: shards must agree in shapes and dtypes of items, but got [*0,*1,*]"),
    (lambda: load({"shards": [2, 3], "position": 1}), ValueError,
     "DataLoader: the shards of the state and these, within an epoch, must agree in lengths, but got [2, 3] and [5]"),
    (lambda: load({"length": 4}), ValueError,
     "DataLoader: the dataset of the state and this dataset must agree in length, but got 4 and 5"),
    (lambda: load({"order": -1}), ValueError, "DataLoader: order must be at least 0, but got -1"),
    (lambda: load({"order": np.arange(5)}), TypeError,
     "DataLoader: order must be an integer, but got array([0, 1, 2, 3, 4])"),
]  # fmt: skip


def load(entries):
    loader = DataLoader(Shard(NDArrayDataset(np.arange(5))), 2, shuffle="order" in entries)
    loader.load_state_dict(loader.state_dict() | entries)


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[2][:70])
def test_errors(row):
    """Where all ranks are refused, that of any rank is seen."""
    call, kind, message = row
    with pytest.raises(kind) as caught:
        call()
    assert fnmatchcase(str(caught.value), message.replace("[", "[[]"))
