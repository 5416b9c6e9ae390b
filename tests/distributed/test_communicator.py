"""What every communicator does, whatever carries it: here ranks are threads."""

from __future__ import annotations

import contextlib
import sys
import threading

import numpy as np
import pytest

from needle.backend import communicator as communicators
from needle.backend.communicator import Alone, Communicator, Part, current_communicator, using
from tests.distributed.threads import run_ranks
from tests.interrupts import interrupt_everywhere

SIZES = [1, 2, 3, 4]


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


@pytest.mark.parametrize("size", SIZES)
def test_sums_are_added_by_rank(size):
    values = np.random.randn(size, 3, 5).astype("float32") * np.float32(10.0) ** np.arange(size)[:, None, None]
    expected = values[0].copy()
    for other in values[1:]:
        expected = expected + other

    def rank(communicator):
        first, second = values[communicator.rank].copy(), np.asfortranarray(values[communicator.rank])
        request = communicator.start_all_reduce(first)
        communicator.all_reduce(second)
        request.wait()
        return first, second

    for result in run_ranks(size, rank):
        assert all(np.array_equal(array, expected) for array in result)


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_one_rank_reach_all(size):
    def rank(communicator):
        array = np.full((2, 2), communicator.rank)
        communicator.broadcast(array, size - 1)
        communicator.barrier()
        return array

    assert all((array == size - 1).all() for array in run_ranks(size, rank))


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_all_ranks_are_gathered(size, device):
    whole = np.arange(2 * size * (size + 1) // 2).reshape(-1, 2)
    starts = np.cumsum([0, *range(1, size + 1)])

    def rank(communicator):
        own = slice(*starts[communicator.rank : communicator.rank + 2])
        scalar = device.array(communicator.rank)
        return communicator.all_gather(device.array(whole[own])), communicator.all_gather(scalar)

    for arrays, scalars in run_ranks(size, rank):
        assert [len(array) for array in arrays] == list(range(1, size + 1))
        assert np.array_equal(np.concatenate([device.to_host(array) for array in arrays]), whole)
        assert [int(device.to_host(scalar)) for scalar in scalars] == list(range(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("total", [0, 1, 2, 3, 4, 7, 64])
def test_parts_are_those_of_array_split(size, total):
    parts = run_ranks(size, lambda communicator: communicator.part_of(total))
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


def test_an_engine_states_how_it_sums_and_sends():
    with pytest.raises(TypeError, match="abstract"):
        Communicator()


def test_the_first_error_of_a_rank_is_raised():
    def rank(communicator):
        if communicator.rank == 1:
            raise LookupError("mine")
        communicator.barrier()

    with pytest.raises(LookupError, match="mine"):
        run_ranks(3, rank)


def test_calls_that_differ_are_an_error():
    def rank(communicator):
        communicator.all_reduce(np.zeros(2 + communicator.rank))

    with pytest.raises(AssertionError, match="the ranks call"):
        run_ranks(2, rank)
