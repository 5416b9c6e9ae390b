"""Ranks on several machines, which are network namespaces with a slowed link between them: see machines.py."""

import functools
import os
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.mpi import exchanges
from tests.distributed.mpi.machines import machines, missing, starter
from tests.distributed.mpi.ranks import PATIENCE, launcher, run, start
from tests.distributed.mpi.test_engine import LIMITS
from tests.distributed.threads import in_shared_memory, run_ranks

PROGRAM = "tests.distributed.mpi.endless"

lacking = functools.cache(missing)


@pytest.fixture
def mpiexec():
    (path, *_), _ = launcher()
    if lacking():
        pytest.skip(lacking())
    return path


def test_sums_have_the_bits_of_one_machine(mpiexec, tmp_path):
    expected = run_ranks(3, exchanges.main, in_shared_memory)
    with machines(3, rate="1gbit", delay=2e-4) as made:
        results = run(3, "exchanges", limits=LIMITS, starter=starter(mpiexec, made, tmp_path))
    assert results == expected


def test_large_sums_send_the_least_that_is_possible(mpiexec, tmp_path):
    """2 (n - 1) / n of the array from each of n ranks, half of that in 16 bits; up to a tenth more is of headers."""
    ranks, size, count = 3, 1 << 20, 4
    with machines(ranks, rate="1gbit") as made:
        sent = run(ranks, "traffic", size, count, [None, "bfloat16"], starter=starter(mpiexec, made, tmp_path))
    least = count * size * 2 * (ranks - 1) / ranks
    for whole, half in sent:
        assert least < whole < 1.1 * least
        assert least / 2 < half < 1.1 * least / 2


def test_a_rank_that_is_killed_ends_those_of_all_machines(mpiexec, tmp_path):
    def ranks():
        return [[pid for pid in machine.processes() if command_of(pid)[1:3] == ["-m", PROGRAM]] for machine in made]

    with machines(2, rate="1gbit") as made:
        beginning = starter(mpiexec, made, tmp_path)
        with start(2, ["python", "-m", PROGRAM], starter=beginning) as started:
            wait_until(lambda: "begun" in started.output, PATIENCE)
            _, (remote,) = ranks()
            os.kill(remote, signal.SIGKILL)
            assert started.wait(10) != 0
            wait_until(lambda: ranks() == [[], []], 5)


def wait_until(is_done, seconds):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


def command_of(pid):
    """The words of a process's command; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
