"""What every communicator does, whatever carries it. Ranks are threads here."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time

import numpy as np
import pytest

from needle import tuning
from needle.backend import communicator as communicators
from needle.backend.communicator import Alone, Communicator, Part, current_communicator, using
from needle.backend.narrow import WIRES, rounded
from needle.distributed.pieces import add
from needle.distributed.shared_memory import (
    POSTED,
    SLOTS,
    STATE,
    SUMMED,
    TAKEN,
    SharedMemoryCommunicator,
    memory_bytes,
)
from tests.distributed.threads import in_python, in_shared_memory, run_ranks
from tests.interrupts import interrupt_everywhere

SIZES = [2, 3, 4]
DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "bool", ">f2", ">f4"]


@pytest.fixture(params=[in_python, in_shared_memory], ids=lambda engine: engine.__name__)
def engine(request, monkeypatch):
    """Each engine; arrays go through shared memory in pieces of at most 1 KiB, summed by shares from 256 bytes on."""
    monkeypatch.setattr(tuning, "SHARED_SLOT_BYTES", 1024)
    monkeypatch.setattr(tuning, "SHARED_SUM_BYTES", 256)
    return request.param


def test_alone_there_is_nothing_to_exchange():
    array = np.arange(6.0).reshape(2, 3)
    alone = current_communicator()
    alone.all_reduce(array)
    alone.start_all_reduce(array).wait()
    alone.broadcast(array)
    alone.barrier()
    (gathered,) = alone.all_gather(array)
    assert (alone.rank, alone.size, alone.part, alone.part_of(8)) == (0, 1, None, None)
    assert np.array_equal(array, np.arange(6.0).reshape(2, 3))
    assert np.array_equal(gathered, array)
    assert gathered is not array


def orders(values):
    """The values in arrays of several orders of memory."""
    yield values.copy()
    yield np.array(values, order="F")
    yield np.repeat(values, 2, axis=-1)[..., ::2]
    yield values[..., ::-1].copy()[..., ::-1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (7,), (3, 5), (13, 31), (2, 500)], ids=str)
def test_sums_are_added_by_rank(engine, size, shape):
    values = np.random.randn(size, *shape).astype("float32")
    values *= np.float32(1000) ** np.arange(size, dtype="float32").reshape(-1, *[1] * len(shape))  # their order shows
    expected = values[0]
    for other in values[1:]:
        expected = expected + other

    def rank(communicator):
        arrays = [*orders(values[communicator.rank])] if shape else [values[communicator.rank, ...].copy()]
        requests = [communicator.start_all_reduce(array) for array in arrays]
        synchronous = values[communicator.rank, ...].copy()
        communicator.all_reduce(synchronous)
        for request in [*requests, *requests]:
            request.wait()
        return [synchronous, *arrays]

    for result in run_ranks(size, rank, engine):
        assert all(np.array_equal(array, expected) for array in result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_every_dtype_are_added(engine, dtype):
    values = np.random.randint(0, 5, (3, 700)).astype(dtype)

    def rank(communicator):
        array = values[communicator.rank].copy()
        communicator.all_reduce(array)
        return array

    for array in run_ranks(3, rank, engine):
        assert array.dtype == values.dtype
        assert np.array_equal(array, values.any(0) if dtype == "bool" else values.sum(0))


def test_ranks_may_have_other_orders_of_bytes():
    def rank(communicator):
        array = np.arange(5).astype("><"[communicator.rank] + "f4")
        communicator.start_all_reduce(array).wait()
        return array.tolist()

    assert run_ranks(2, rank, in_shared_memory) == [[0, 2, 4, 6, 8]] * 2
    gathered = run_ranks(2, lambda rank: rank.all_gather(np.ones(2, ">f4")), in_shared_memory)
    assert {array.dtype.str for arrays in gathered for array in arrays} == {">f4"}


def test_float16_is_added_in_float32(engine):
    values = np.array([2048, 1, 1], "float16")

    def rank(communicator):
        array = values[communicator.rank : communicator.rank + 1].copy()
        communicator.all_reduce(array)
        return array.item()

    assert run_ranks(3, rank, engine) == [2050.0] * 3


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 700)], ids=str)
def test_floats_that_travel_in_16_bits_are_rounded_twice(engine, wire, dtype, shape):
    values = np.random.randn(3, *shape).astype(dtype)
    first, second, third = (rounded(value, wire) for value in values)
    expected = rounded(first + second + third, wire).astype(dtype)

    def rank(communicator):
        arrays = [*orders(values[communicator.rank])] if shape else [values[communicator.rank, ...].copy()]
        requests = [communicator.start_all_reduce(array, wire) for array in arrays]
        synchronous = values[communicator.rank, ...].copy()
        communicator.all_reduce(synchronous, wire=wire)
        for request in requests:
            request.wait()
        return [synchronous, *arrays]

    for result in run_ranks(3, rank, engine):
        for array in result:
            assert array.dtype == dtype
            assert np.array_equal(array, expected)


def test_floats_of_16_bits_that_overflow_are_infinite_without_a_warning(engine):
    def rank(communicator):
        arrays = [np.array([65504.0, -65520.0, np.nan, 1e30]) for _ in WIRES]
        arrays += [np.array([60000.0], "float16"), np.array([3e38], "float32")]
        for array, wire in zip(arrays, ["float16", "bfloat16", "bfloat16", "bfloat16"], strict=True):
            communicator.all_reduce(array, wire)
        return [array.tolist() for array in arrays]

    for half, brain, narrow, wide in run_ranks(2, rank, engine):
        assert str(half) == "[inf, -inf, nan, inf]"
        assert str(brain[:3]) == "[131072.0, -131072.0, nan]"
        assert narrow == wide == [np.inf]


def test_sums_that_overflow_are_infinite_without_a_warning(engine):
    def rank(communicator):
        array = np.array([3e38, np.inf, np.nan], "float32") * np.array([1, 1 - 2 * communicator.rank, 1], "float32")
        communicator.all_reduce(array)
        return array.tolist()

    for first, second, third in run_ranks(2, rank, engine):
        assert first == np.inf
        assert np.isnan([second, third]).all()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_sum_may_replace_any_of_its_terms(number):
    terms = [np.full(3, 10.0**i) for i in range(3)]
    add(terms, terms[number])
    assert terms[number].tolist() == [111.0] * 3


def test_nobody_passes_a_barrier_before_all_have_come(engine):
    has_come = threading.Event()

    def rank(communicator):
        if communicator.rank == 0:
            time.sleep(0.05)
            has_come.set()
        communicator.barrier()
        return has_come.is_set()

    assert run_ranks(2, rank, engine) == [True, True]


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_one_rank_reach_all(engine, size):
    values = np.arange(900).reshape(2, 450)

    def rank(communicator):
        array = np.asfortranarray(values * (communicator.rank == size - 1))
        communicator.broadcast(array, size - 1)
        communicator.barrier()
        return array

    assert all(np.array_equal(array, values) for array in run_ranks(size, rank, engine))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gather", [lambda rank, x: rank.all_gather(x), Communicator.all_gather], ids=["own", "any"])
@pytest.mark.parametrize("width", [2, 100])
def test_arrays_of_all_ranks_are_gathered(engine, size, gather, width, device):
    """The longer ones of some ranks do not fit into a slot of shared memory, those of others do."""
    whole = np.arange(width * size * (size + 1) // 2).reshape(-1, width)
    starts = np.cumsum([0, *range(1, size + 1)])

    def rank(communicator):
        own = device.array(whole[starts[communicator.rank] : starts[communicator.rank + 1]])
        scalar = device.array(communicator.rank)
        return gather(communicator, own), gather(communicator, scalar)

    for arrays, scalars in run_ranks(size, rank, engine):
        assert [len(array) for array in arrays] == list(range(1, size + 1))
        assert np.array_equal(np.concatenate([device.to_host(array) for array in arrays]), whole)
        assert [int(device.to_host(scalar)) for scalar in scalars] == list(range(size))


@pytest.mark.parametrize("size", [1, 3])
def test_objects_of_all_ranks_are_gathered(engine, size):
    """As copies, of any length."""
    values = [{"rank": rank, "text": "x" * 300_000 * rank, "array": np.arange(rank)} for rank in range(size)]
    for gathered in run_ranks(size, lambda one: one.all_gather_object(values[one.rank]), engine):
        for value, expected in zip(gathered, values, strict=True):
            assert value is not expected
            assert repr(value) == repr(expected)


def test_arrays_of_a_device_are_added_there(engine, device):
    def rank(communicator):
        array = device.array([[1.0, 2.0], [3.0, communicator.rank]])
        communicator.all_reduce(array)
        communicator.broadcast(array, 1)
        return device.to_host(array).tolist()

    assert run_ranks(2, rank, engine) == [[[2.0, 4.0], [6.0, 1.0]]] * 2


@pytest.mark.parametrize("size", [1, *SIZES])
@pytest.mark.parametrize("total", [0, 1, 2, 3, 4, 7, 64])
def test_parts_are_those_of_array_split(size, total):
    parts = [communicator.part_of(total) for communicator in in_shared_memory(size)]
    if size == 1 or total < size:
        assert parts == [None] * size
    else:
        pieces = np.array_split(np.arange(total), size)
        assert parts == [Part(int(piece[0]), int(piece[-1]) + 1, total) for piece in pieces]


def test_a_communicator_is_used_by_one_thread_until_the_block_ends():
    mine, seen = Alone(), []
    before = current_communicator()
    with using(mine):
        assert current_communicator() is mine
        thread = threading.Thread(target=lambda: seen.append(current_communicator()))
        thread.start()
        thread.join()
        with using(before):
            assert current_communicator() is before
        assert current_communicator() is mine
    assert current_communicator() is before
    assert seen == [before]


def test_an_interrupt_leaves_the_communicator_of_before():
    before = current_communicator()

    def run():
        with using(Alone()):
            assert current_communicator() is not before

    places = []
    for place in interrupt_everywhere(run, contextlib, sys.modules[communicators.__name__]):
        assert current_communicator() is before, place
        places.append(place)
    assert {place.split(":")[0] for place in places} >= {"using", "__enter__", "__exit__"}


@pytest.mark.parametrize("takes_first", [True, False])
def test_a_slot_is_used_again_once_all_have_taken_what_was_in_it(takes_first):
    """A rank that has started four sums, and completes none, holds up the fifth one, the other's and its own.

    The other sums a small array as soon as it is posted, perhaps before its own rank does.
    """
    have_started, is_ahead = threading.Event(), threading.Event()

    def rank(communicator):
        arrays = [np.full(2, 10.0 * i + communicator.rank) for i in range(SLOTS + 1)]
        if communicator.rank == 0:
            have_started.wait()
            for array in arrays[:-1]:
                communicator.all_reduce(array)
            is_ahead.set()
            communicator.all_reduce(arrays[-1])
        else:
            requests = [communicator.start_all_reduce(array) for array in arrays[:-1]]
            have_started.set()
            is_ahead.wait()
            if takes_first:
                time.sleep(0.02)
            else:
                communicator.all_reduce(arrays[-1])
            for request in requests:
                request.wait()
            if takes_first:
                communicator.all_reduce(arrays[-1])
        return [array.tolist() for array in arrays]

    assert run_ranks(2, rank, in_shared_memory) == [[[20.0 * i + 1] * 2 for i in range(SLOTS + 1)]] * 2


class Recording(SharedMemoryCommunicator):
    """Notes when the counters of all others have come far enough, each fence, and each counter that is written."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.events = []
        self._counters = _Counters(self._counters, self._own, self.events)

    def _reached(self, counter, count):
        reached = super()._reached(counter, count)
        if reached:
            self.events.append(("read", counter))
        return reached

    def _order_memory(self):
        self.events.append(("fence", None))
        super()._order_memory()


class _Counters:
    def __init__(self, counters, own, events):
        self.counters, self.own, self.events = counters, own, events

    def __getitem__(self, place):
        return self.counters[place]

    def __setitem__(self, place, count):
        self.counters[place] = count
        self.events.append(("write", place - self.own))


@pytest.mark.parametrize("size", [4, 1000, 100_000])
def test_memory_is_in_order_before_others_are_told_and_after_they_have_told(size, monkeypatch):
    """A processor that reorders memory needs a fence between data and their counter, on both sides.

    This one may not reorder, so only the fences are looked at: small sums, sums by shares, several pieces, broadcasts.
    """

    def rank(communicator):
        for call in (communicator.all_reduce, communicator.broadcast, communicator.all_gather):
            communicator.events.clear()
            call(np.ones(size))
            events = [("call", None), *(event for event in communicator.events if event != ("read", TAKEN))]
            for before, after in itertools.pairwise(events):
                if before[0] == "read":
                    assert after[0] == "fence", events
                if after[0] == "write" and after[1] != STATE and before != ("write", SUMMED):
                    assert before[0] == "fence" or after[1] == SUMMED, events
            by_shares = call == communicator.all_reduce and 8 * size >= tuning.SHARED_SUM_BYTES
            if by_shares:
                assert {events[i - 1][0] for i, event in enumerate(events) if event == ("write", SUMMED)} == {"fence"}
            assert {("write", POSTED), ("write", TAKEN)} <= {*events}

    def engine(size):
        memory = bytearray(memory_bytes(size))
        return [Recording(rank, size, memory) for rank in range(size)]

    monkeypatch.setattr(tuning, "SHARED_SUM_BYTES", 4096)
    run_ranks(2, rank, engine)


def test_an_engine_states_how_it_sums_and_sends():
    with pytest.raises(TypeError, match="abstract"):
        Communicator()


def test_an_error_of_one_rank_ends_the_others(engine):
    def rank(communicator):
        if communicator.rank == 1:
            raise LookupError("mine")
        communicator.barrier()

    with pytest.raises((LookupError, RuntimeError), match=r"mine|rank 1 has failed"):
        run_ranks(3, rank, engine)


@pytest.mark.parametrize(
    "call",
    [
        lambda communicator: communicator.all_reduce(np.zeros(2 + communicator.rank)),
        lambda communicator: communicator.all_reduce(np.zeros((2, 3) if communicator.rank else (3, 2))),
        lambda communicator: communicator.all_reduce(np.zeros(2, ["float32", "int32"][communicator.rank])),
        lambda communicator: communicator.all_reduce(np.zeros(2), ["float16", "bfloat16"][communicator.rank]),
        lambda communicator: communicator.all_reduce(np.zeros(2), [None, "bfloat16"][communicator.rank]),
        lambda communicator: communicator.broadcast(np.zeros(2), communicator.rank),
        lambda communicator: communicator.all_gather(np.zeros((2, 1 + communicator.rank))),
        lambda communicator: [communicator.broadcast, communicator.all_reduce][communicator.rank](np.zeros(900)),
    ],
)
def test_calls_that_differ_are_an_error(engine, call):
    with pytest.raises(RuntimeError, match=r"ranks must make the same calls, but|has failed"):
        run_ranks(2, call, engine)
