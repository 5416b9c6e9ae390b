"""Ranks on several machines, which are network namespaces with a slowed link between them: see machines.py."""

import functools
import os
import signal
from pathlib import Path

import pytest

import needle as ndl
from tests.distributed.mpi import exchanges
from tests.distributed.mpi.machines import machines, missing, starter
from tests.distributed.mpi.ranks import PATIENCE, is_open_mpi, launcher, run, start, waits_for_machines
from tests.distributed.mpi.test_engine import LIMITS
from tests.distributed.threads import in_shared_memory, run_ranks
from tests.waiting import wait_until

PROGRAM, SCRIPT = "tests.distributed.mpi.endless", "apps/train.py"

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
    with machines(2, rate="1gbit") as made:
        beginning = starter(mpiexec, made, tmp_path)
        with start(2, ["python", "-m", PROGRAM, "60"], starter=beginning) as started:
            wait_until(lambda: "begun" in started.output, PATIENCE)
            _, (remote,) = ranks(made)
            os.kill(remote, signal.SIGKILL)
            assert started.wait(10) != 0
            wait_until(lambda: ranks(made) == [[], []], 5)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2])
def test_a_machine_that_vanishes_ends_those_of_all_machines(number, mpiexec, tmp_path):
    """When its link is cut nobody is told, so all wait for the time limit; both sides end."""
    with machines(3) as made:
        beginning = starter(mpiexec, made, tmp_path)
        with start(3, ["python", "-m", PROGRAM, "3"], starter=beginning) as started:
            wait_until(lambda: "begun" in started.output, PATIENCE)
            made[number].run("ip", "link", "set", "eth0", "down")
            wait_until(lambda: ranks(made) == [[], [], []], PATIENCE)
            assert "TimeoutError: all_reduce: all ranks must " in started.errors
            if not waits_for_machines(mpiexec):
                assert started.wait(10) != 0


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["kill a rank", "kill a machine", "interrupt"])
def test_a_run_on_several_machines_ends_and_goes_on(deed, mpiexec, tmp_path):
    """On the first two of three machines, with one that gets all its processes killed; then on all three."""
    folder = tmp_path / "run"
    train = ["python", SCRIPT, "--distributed"]
    with machines(3) as made:
        beginning = starter(mpiexec, made, tmp_path)
        with start(2, [*train, "--epochs", "4000", "--out", str(folder)], starter=beginning) as started:
            wait_until(lambda: "epoch  2" in started.output, PATIENCE)  # so the first one is saved
            if deed == "interrupt":
                os.kill(started.process.pid, signal.SIGINT)
            else:
                for pid in ranks(made, SCRIPT)[1] if deed == "kill a rank" else made[1].processes():
                    if pid != made[1].pid:
                        os.kill(pid, signal.SIGKILL)
            status = started.wait(PATIENCE)
            assert status != 0 or (deed == "kill a machine" and is_open_mpi(mpiexec))
            wait_until(lambda: ranks(made, SCRIPT) == [[], [], []], 5)
        state = ndl.load(folder / "last.npz")
        assert state["epoch"] >= 1
        with start(3, [*train, "--resume", str(folder)], starter=beginning) as resumed:
            wait_until(lambda: f"\nepoch {state['epoch'] + 1:2}: " in resumed.output, PATIENCE)
            assert f"\n3 ranks\ngoes on after {state['epoch']} of 4000 epochs" in resumed.output


def ranks(made, program=PROGRAM):
    """The processes that are ranks of a module or a script, by machines."""
    return [[pid for pid in machine.processes() if program in command_of(pid)[1:3]] for machine in made]


def command_of(pid):
    """The words of a process's command; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
