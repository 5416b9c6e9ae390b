"""Ranks on several machines, which are network namespaces with a slowed link between them: see machines.py."""

import functools

import pytest

from tests.distributed.mpi import exchanges
from tests.distributed.mpi.machines import machines, missing, starter
from tests.distributed.mpi.ranks import launcher, run
from tests.distributed.mpi.test_engine import LIMITS
from tests.distributed.threads import in_shared_memory, run_ranks

lacking = functools.cache(missing)


@pytest.fixture
def mpiexec():
    (path, *_), _ = launcher()
    if lacking():
        pytest.skip(lacking())
    return path


def test_sums_have_the_bits_of_one_machine(mpiexec, tmp_path):
    expected = run_ranks(3, exchanges.main, in_shared_memory)
    with machines(3, rate="1gbit", delay=1e-3) as made:
        results = run(3, "exchanges", limits=LIMITS, starter=starter(mpiexec, made, tmp_path))
    assert results == expected


def test_large_sums_send_the_least_that_is_possible(mpiexec, tmp_path):
    """2 (n - 1) / n of the array from each of n ranks; up to a tenth more is of headers."""
    ranks, size, count = 3, 1 << 20, 4
    with machines(ranks, rate="1gbit") as made:
        sent = run(ranks, "traffic", size, count, [None], starter=starter(mpiexec, made, tmp_path))
    least = count * size * 2 * (ranks - 1) / ranks
    for (plain,) in sent:
        assert least < plain < 1.1 * least
