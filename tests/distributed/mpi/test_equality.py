"""Same mathematics: what ranks compute together is what one process computes, with the same bits in every run."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from needle.distributed import launch
from tests.distributed.mpi import equality
from tests.distributed.mpi.ranks import run

FEW = ("convolutions, Adam", "fit", "shards", "bfloat16")


@functools.cache
def by_one(name, size):
    """What one process computes; of shards, with the batches of `size` ranks."""
    return equality.run(name, size)


def names(size):
    """One rank does what a process does, and four or eight are slow."""
    return FEW if size in (1, 4, 8) else tuple(equality.CASES)


@functools.cache
def by_ranks(size):
    """What ranks of MPI compute: a dict by rank."""
    return run(size, "equality", names(size), timeout=150)


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]


@pytest.mark.parametrize("size", [1, 2, 3, 4, *(pytest.param(size, marks=pytest.mark.slow) for size in (5, 8))])
def test_ranks_follow_one_process(size):
    first, *others = by_ranks(size)
    for result in others:
        assert_same_bits(result, first)
    for name in equality.EXACT.keys() & first.keys():
        expected = by_one(name, size if name == "shards" else 1)
        assert np.isfinite(expected).all(), name
        np.testing.assert_allclose(first[name], expected, rtol=1e-10, atol=1e-10, err_msg=name)
        is_whole = size == 1 or (size > 5 and name in ("fit", "shards"))  # whose batches have five items
        assert np.array_equal(first[name], expected) == is_whole  # sums of parts are rounded otherwise


@pytest.mark.parametrize("size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 4, 5))])
def test_shared_memory_has_the_same_bits(size):
    assert_same_bits(launch(equality.launched, size, (names(size),)), by_ranks(size)[0])


@pytest.mark.parametrize("size", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_on_shards_goes_on_within_an_epoch(size):
    """Bit for bit, although each shard has noise of its own, and some ranks have no item of some batches."""
    whole, parts = by_ranks(size)[0]["resumed"]
    np.testing.assert_array_equal(whole, parts)


def test_two_runs_have_the_same_bits():
    assert_same_bits(run(2, "equality", FEW)[0], {name: by_ranks(2)[0][name] for name in FEW})
