"""The loader: batches, dtypes, memory order, shuffling, and the thread that prepares batches ahead."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import needle as ndl
from needle.backend import parallel
from needle.data import DataLoader, Dataset, NDArrayDataset, ahead, loader
from tests.interrupts import interrupt_everywhere

AHEAD = pytest.mark.parametrize("prefetch", [0, 1, 3])


class Numbers(Dataset):
    """Items 0 .. count-1; item `broken` raises. Records the requested indices and the requesting threads."""

    def __init__(self, count=10, broken=None):
        super().__init__()
        self.count, self.broken = count, broken
        self.asked, self.threads = [], set()

    def __getitem__(self, index):
        self.asked.append(index)
        self.threads.add(threading.current_thread())
        if index == self.broken:
            raise KeyError(f"no item {index}")
        return np.float32(index), index

    def __len__(self):
        return self.count


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"needle"}  # that of parallel loops


def numbers(loader):
    """The labels of one epoch, batch by batch."""
    return [labels.numpy().tolist() for _, labels in loader]


def eventually(condition):
    """Whether `condition()` holds within ten seconds."""
    deadline = time.monotonic() + 10
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return held


@AHEAD
@given(count=st.integers(0, 12), size=st.integers(1, 7), drop_last=st.booleans())
def test_batches_are_consecutive_chunks(prefetch, count, size, drop_last):
    loader = DataLoader(NDArrayDataset(np.arange(count)), size, drop_last=drop_last, prefetch=prefetch)
    chunks = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
    if drop_last:
        chunks = [chunk for chunk in chunks if len(chunk) == size]
    assert [batch.numpy().tolist() for (batch,) in loader] == chunks
    assert len(loader) == len(chunks)


@AHEAD
@pytest.mark.parametrize("shuffle", [False, True])
def test_stacked_items_and_indexed_arrays_give_the_same(prefetch, shuffle):
    plain = NDArrayDataset(np.arange(10, dtype=np.float32), np.arange(10))
    loaders = [DataLoader(dataset, 4, shuffle, seed=3, prefetch=prefetch) for dataset in (plain, Numbers())]
    assert numbers(loaders[0]) == numbers(loaders[1])


def test_batches_are_tuples_of_tensors_without_gradient():
    batch = next(iter(DataLoader(NDArrayDataset(np.zeros((4, 2, 3)), np.arange(4)), 3)))
    assert isinstance(batch, tuple)
    images, labels = batch
    for tensor, shape in ((images, (3, 2, 3)), (labels, (3,))):
        assert isinstance(tensor, ndl.Tensor)
        assert tensor.shape == shape
        assert not tensor.requires_grad
        assert tensor.device == ndl.cpu()


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [("float64", "float32"), ("float32", "float32"), ("float16", "float32")]
    + [(name, name) for name in ("uint8", "int32", "int64", "bool")],
)
def test_floats_become_float32_and_other_dtypes_stay(given_dtype, dtype):
    array = np.array([0, 1], dtype=given_dtype)
    for dataset in (NDArrayDataset(array), NDArrayDataset(array, transforms=[lambda x: x])):
        (batch,) = next(iter(DataLoader(dataset, 2)))
        assert batch.dtype == dtype
        assert batch.numpy().tolist() == [0, 1]


def test_a_batch_of_one_is_one_element():
    _, label = next(iter(DataLoader(Numbers())))
    assert label.shape == (1,)
    assert label.numpy().item() == 0


def test_batches_are_put_on_the_device():
    (batch,) = next(iter(DataLoader(NDArrayDataset(np.arange(3)), device=ndl.cpu())))
    assert batch.device == ndl.cpu()


def test_a_batch_does_not_share_the_data_of_the_dataset():
    array = np.zeros(3, np.float32)
    (batch,) = next(iter(DataLoader(NDArrayDataset(array), 3)))
    array[:] = 1
    assert batch.numpy().tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_a_batch_may_be_written_to(size, dtype, device):
    """`take` may return the stored arrays themselves: the loader copies."""

    class Stored(NDArrayDataset):
        def take(self, indices):
            return self.arrays

    dataset = Stored(np.ones((size, 1, 2, 2), dtype))
    ((batch,),) = DataLoader(dataset, size, device=device)
    batch.cached_data[...] = 7
    assert (batch.numpy() == 7).all()
    assert (dataset.arrays[0] == 1).all()


def images_of(*shape, dtype="float32"):
    return np.random.default_rng(0).uniform(0, 200, shape).astype(dtype)


def is_batch_last(tensor):
    return np.moveaxis(tensor.array, 0, -1).flags.c_contiguous


@AHEAD
@pytest.mark.parametrize("transforms", [None, [lambda x: x[::-1]]], ids=["plain", "transformed"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_image_batches_are_stored_batch_last(prefetch, transforms, dtype):
    dataset = NDArrayDataset(images_of(70, 3, 20, 20, dtype=dtype), np.arange(70), transforms=transforms)
    batches = list(DataLoader(dataset, 64, prefetch=prefetch))
    for (images, labels), chunk in zip(batches, (np.arange(64), np.arange(64, 70)), strict=True):
        assert not images.requires_grad
        np.testing.assert_array_equal(images.numpy(), dataset.take(chunk)[0].astype("float32"), strict=True)
        assert images.numpy().flags.c_contiguous
        assert labels.array.flags.c_contiguous
    assert all(is_batch_last(images) for images, _ in batches)


@AHEAD
@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (8, 1, 28, 28), (4, 2, 3, 4, 5)], ids=["tiny", "gray", "volumes"])
def test_small_gray_and_three_dimensional_batches_are_stored_batch_last(prefetch, shape):
    ((batch,),) = DataLoader(NDArrayDataset(images_of(*shape)), len(images_of(*shape)), prefetch=prefetch)
    assert is_batch_last(batch)
    np.testing.assert_array_equal(batch.numpy(), images_of(*shape), strict=True)


@pytest.mark.parametrize(
    "array",
    [
        images_of(64, 3, 32, 32, dtype="uint8"),
        images_of(64, 48, 64),
        images_of(64, 4096),
        images_of(1, 3, 256, 256),
    ],
    ids=["integers", "three axes", "two axes", "a single image"],
)
def test_other_batches_are_row_major(array):
    (batch,) = next(iter(DataLoader(NDArrayDataset(array), len(array))))
    assert batch.array.flags.c_contiguous
    np.testing.assert_array_equal(batch.numpy(), array, strict=True)


def test_a_large_batch_does_not_share_the_data_of_the_dataset():
    class Whole(NDArrayDataset):
        def take(self, indices):
            return self.arrays

    dataset = Whole(images_of(64, 3, 20, 20))
    (batch,) = next(iter(DataLoader(dataset, 64)))
    assert is_batch_last(batch)
    assert not np.shares_memory(batch.array, dataset.arrays[0])


def test_batches_are_stored_batch_last_where_kernels_want_them_so(device):
    images = images_of(64, 3, 20, 20)
    (batch,) = next(iter(DataLoader(NDArrayDataset(images), 64, device=device)))
    assert batch.device == device
    assert bool(batch.array.flags.c_contiguous) == (str(device) not in ("cpu()", "cuda()"))
    np.testing.assert_array_equal(batch.numpy(), images, strict=True)


@AHEAD
def test_shuffling_draws_one_permutation_in_iter(prefetch):
    np.random.seed(7)
    orders = [np.random.permutation(10).tolist() for _ in range(2)]
    after = np.random.rand()
    np.random.seed(7)
    loader = DataLoader(Numbers(), 3, shuffle=True, prefetch=prefetch)
    epochs = [iter(loader), iter(loader)]
    assert np.random.rand() == after
    for epoch, order in zip(epochs, orders, strict=True):
        assert numbers(epoch) == [order[:3], order[3:6], order[6:9], order[9:]]


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "seed": 5}], ids=["in order", "own seed"])
def test_nothing_else_draws_from_the_global_generator(options):
    state = np.random.get_state()
    list(DataLoader(Numbers(), 3, **options))
    np.testing.assert_equal(np.random.get_state(), state)


def test_a_seed_fixes_the_sequence_of_orders():
    first, second, other = (DataLoader(Numbers(20), 20, shuffle=True, seed=seed) for seed in (5, 5, 6))
    orders = [numbers(first)[0] for _ in range(3)]
    np.random.seed(99)
    assert [numbers(second)[0] for _ in range(3)] == orders
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert all(one != next_one for one, next_one in itertools.pairwise(orders))
    assert numbers(other)[0] != orders[0]


def test_arrays_without_transforms_are_indexed_once_per_batch():
    class Counted(NDArrayDataset):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    plain, transformed = Counted(np.arange(8)), Counted(np.arange(8), transforms=[lambda x: x])
    assert list(DataLoader(plain, 4))[1][0].numpy().tolist() == [4, 5, 6, 7]
    assert list(DataLoader(transformed, 4))[1][0].numpy().tolist() == [4, 5, 6, 7]
    assert plain.reads == 2
    assert transformed.reads == 2 + 8


def test_without_prefetch_there_is_no_thread_and_nothing_is_read_ahead():
    dataset = Numbers()
    epoch = iter(DataLoader(dataset, 2))
    assert dataset.asked == []
    next(epoch)
    assert dataset.asked == [0, 1]
    assert dataset.threads == {threading.current_thread()}


@pytest.mark.parametrize("prefetch", [1, 3])
def test_one_thread_reads_at_most_prefetch_batches_ahead(prefetch):
    dataset = Numbers(20)
    epoch = iter(DataLoader(dataset, 2, prefetch=prefetch))
    assert dataset.asked == []
    for read in range(1, 4):
        next(epoch)
        assert eventually(lambda read=read: len(dataset.asked) == 2 * (read + prefetch))
    time.sleep(0.02)
    assert len(dataset.asked) == 2 * (3 + prefetch)
    assert len(dataset.threads) == 1
    assert threading.current_thread() not in dataset.threads
    epoch.close()


@AHEAD
def test_an_error_in_the_dataset_reaches_next_in_its_turn(prefetch):
    epoch = iter(DataLoader(Numbers(broken=5), 2, prefetch=prefetch))
    assert [next(epoch)[1].numpy().tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="no item 5") as caught:
        next(epoch)
    assert "__getitem__" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    with pytest.raises(StopIteration):
        next(epoch)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_every_kind_of_error_in_the_thread_reaches_next(kind):
    def leave(_):
        raise kind("now")

    epoch = iter(DataLoader(NDArrayDataset(np.arange(4), transforms=[leave]), prefetch=2))
    with pytest.raises(kind, match="now"):
        next(epoch)


def test_break_stops_the_thread():
    before = threading.active_count()
    dataset = Numbers(1000)
    for _ in DataLoader(dataset, 2, prefetch=2):
        assert threading.active_count() == before + 1
        break
    assert threading.active_count() == before
    assert len(dataset.asked) <= 2 * 4


def test_an_error_in_the_loop_stops_the_thread():
    before = threading.active_count()

    def train():
        for _ in DataLoader(Numbers(1000), 2, prefetch=2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        train()
    assert threading.active_count() == before
    assert caught.tb is not None


def test_an_error_in_making_the_tensors_stops_the_thread(monkeypatch):
    def out_of_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("needle.data.feed._on", out_of_memory)
    before = threading.active_count()
    with pytest.raises(MemoryError) as caught:
        next(iter(DataLoader(Numbers(1000), 2, prefetch=2)))
    assert threading.active_count() == before
    assert caught.tb is not None


def test_closing_stops_the_thread():
    before = threading.active_count()
    epoch = iter(DataLoader(Numbers(1000), 2, prefetch=2))
    next(epoch)
    epoch.close()
    assert threading.active_count() == before
    assert list(epoch) == []


def test_an_epoch_that_is_never_started_starts_no_thread():
    before = threading.active_count()
    epoch = iter(DataLoader(Numbers(), prefetch=2))
    assert threading.active_count() == before
    epoch.close()


def test_closing_while_the_thread_waits_inside_the_dataset():
    entered, allowed = threading.Event(), threading.Event()

    class Slow(Numbers):
        def __getitem__(self, index):
            if index == 1:
                entered.set()
                assert allowed.wait(10)
            return super().__getitem__(index)

    dataset = Slow()
    epoch = iter(DataLoader(dataset, prefetch=1))
    next(epoch)
    assert entered.wait(10)
    timer = threading.Timer(0.02, allowed.set)
    timer.start()
    epoch.close()
    assert dataset.asked == [0, 1]
    timer.join()


def test_the_thread_may_itself_collect_the_epoch_it_works_for():
    epochs, stopped = [], threading.Event()

    class Collecting(Numbers):
        def __getitem__(self, index):
            if index == 1:
                while not epochs:
                    time.sleep(0.001)
                epochs.clear()
                stopped.set()
            return super().__getitem__(index)

    dataset = Collecting(1000)
    epoch = iter(DataLoader(dataset, prefetch=5))
    next(epoch)
    epochs.append(epoch)
    del epoch
    assert stopped.wait(10)
    assert eventually(lambda: not any(thread.name == "needle-prefetch" for thread in threading.enumerate()))
    assert dataset.asked == [0, 1]


def test_an_epoch_in_a_cycle_is_collected_with_its_thread():
    before = threading.active_count()
    cycle = [iter(DataLoader(Numbers(1000), prefetch=2))]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("read", [1, 3], ids=["closed early", "whole"])
def test_an_interrupt_at_any_line_leaves_no_thread(read):
    def run():
        epoch = iter(DataLoader(Numbers(3), 2, prefetch=2))
        list(itertools.islice(epoch, read))
        epoch.close()

    places = []
    for place in interrupt_everywhere(run, loader, ahead, parallel, threading):
        assert eventually(lambda: not any(thread.name == "needle-prefetch" for thread in threading.enumerate())), place
        places.append(place)
    assert {place.split(":")[0] for place in places} >= {"__iter__", "_tensors", "read_ahead", "start_thread", "stop"}


def test_a_thread_that_cannot_be_started_is_an_error(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
        next(iter(DataLoader(Numbers(), prefetch=1)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_told_that_the_thread_is_missing():
    code = """
import os, time
import numpy as np
from needle.data import DataLoader, Dataset

class Slow(Dataset):
    def __getitem__(self, index):
        time.sleep(0.02)
        return np.float32(index)

    def __len__(self):
        return 9

for pause in (0, 0.1):  # the thread is in the dataset, or waits for a free slot
    epoch = iter(DataLoader(Slow(), 2, prefetch=1))
    next(epoch)
    time.sleep(pause)
    child = os.fork()
    if not child:
        try:
            next(epoch)
        except RuntimeError as error:
            print(error, flush=True)
        assert list(epoch) == []
        assert len(list(DataLoader(Slow(), 9, prefetch=1))) == 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(epoch)) == 4
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    message = "DataLoader: an epoch with prefetch must be read by the process that began it, but got a forked one"
    assert done.stdout.splitlines() == [f"{message}; begin a new epoch there"] * 2


def test_two_epochs_at_once():
    loader = DataLoader(Numbers(), 5, prefetch=2)
    pairs = [(one[1].numpy().tolist(), two[1].numpy().tolist()) for one, two in zip(loader, loader, strict=True)]
    assert pairs == [([0, 1, 2, 3, 4],) * 2, ([5, 6, 7, 8, 9],) * 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DataLoader([1, 2]), TypeError, "^DataLoader: dataset must be a Dataset, but got list$"),
        (lambda: DataLoader(Numbers(), 0), ValueError, "^DataLoader: batch_size must be at least 1, but got 0$"),
        (lambda: DataLoader(Numbers(), 2.5), TypeError, "^DataLoader: batch_size must be an integer, but got 2.5$"),
        (
            lambda: DataLoader(Numbers(), prefetch=-1),
            ValueError,
            "^DataLoader: prefetch must be at least 0, but got -1$",
        ),
        (lambda: DataLoader(Numbers(), 2, [abs]), TypeError, "^DataLoader: shuffle must be a bool, but got list$"),
        (
            lambda: DataLoader(Numbers(), 2, np.True_),
            TypeError,
            "^DataLoader: shuffle must be a bool, but got numpy.bool",
        ),
        (lambda: DataLoader(Numbers(), drop_last=1), TypeError, "^DataLoader: drop_last must be a bool, but got int$"),
        (lambda: DataLoader(Numbers(), device="cpu"), TypeError, "^DataLoader: device must be a Device, but got str$"),
        (lambda: DataLoader(Numbers(), seed="one"), TypeError, "^DataLoader: seed must be an integer, but got 'one'$"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- options that are set later --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("dataset", [1, 2], TypeError, "dataset must be a Dataset, but got list"),
        ("batch_size", 0, ValueError, "batch_size must be at least 1, but got 0"),
        ("batch_size", 2.0, TypeError, "batch_size must be an integer, but got 2.0"),
        ("shuffle", "no", TypeError, "shuffle must be a bool, but got str"),
        ("drop_last", 1, TypeError, "drop_last must be a bool, but got int"),
        ("prefetch", -1, ValueError, "prefetch must be at least 0, but got -1"),  # it waited for ever
        ("device", "cpu", TypeError, "device must be a Device, but got str"),
    ],
)
def test_an_option_is_checked_whenever_it_is_set(name, value, error, message):
    loader = DataLoader(NDArrayDataset(np.arange(5)))
    before = getattr(loader, name)
    for act in (lambda: setattr(loader, name, value), lambda: DataLoader(**{"dataset": loader.dataset, name: value})):
        with pytest.raises(error, match=f"^DataLoader: {message}$"):
            act()
    assert getattr(loader, name) is before


def test_an_option_that_is_set_later_holds_from_the_next_epoch():
    loader = DataLoader(NDArrayDataset(np.arange(6)), 2)
    epoch = iter(loader)
    next(epoch)
    loader.batch_size, loader.prefetch = 3, 1
    assert [batch.numpy().tolist() for (batch,) in epoch] == [[2, 3], [4, 5]]
    assert [batch.numpy().tolist() for (batch,) in loader] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_dataset_may_use_the_memory_of_its_batches_again(prefetch):
    class Reusing(Dataset):
        batch = np.zeros((2, 3), np.float32)

        def __len__(self):
            return 8

        def take(self, indices):
            self.batch[:] = np.reshape(indices, (2, 1))
            return (self.batch,)

    batches = [batch.numpy()[:, 0].tolist() for (batch,) in DataLoader(Reusing(), 2, prefetch=prefetch)]
    assert batches == [[0, 1], [2, 3], [4, 5], [6, 7]]
