"""Programs in several processes: what they share, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tracemalloc

import numpy as np
import pytest

from needle.backend.blas import limited_to, worker_count
from needle.distributed import current_communicator, launch, processes
from needle.distributed.processes import Group, WorkerTraceback
from tests.distributed import programs
from tests.interrupts import interrupt_everywhere

launching = sys.modules["needle.distributed.launch"]


def slow(*row):
    return pytest.param(*row, marks=pytest.mark.slow)


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_share_sums_streams_and_threads(workers, monkeypatch):
    """And end by themselves, once all that they have begun is done."""
    shared, groups = [1], []
    monkeypatch.setattr(processes, "GRACE", 0.0)
    monkeypatch.setattr(launching, "Group", lambda *options: groups.append(Group(*options)) or groups[0])
    with limited_to(5):
        total, described, named = launch(programs.describe, workers, (shared, shared), timeout=30)
        assert worker_count() == 5
    assert np.array_equal(total, np.arange(300_000.0) * (workers * (workers + 1) // 2))
    ranks, pids, threads, *draws, same, ignoring = np.concatenate(described).T
    assert np.array_equal(ranks, [np.nan, *range(1, workers)], equal_nan=True)  # rank 0 is nobody's worker
    assert pids[0] == os.getpid()
    assert len(set(pids)) == workers
    assert set(threads) == {5 // workers}
    assert [len(set(drawn)) for drawn in draws] == [1, 1]  # by NumPy, and by Python's random
    assert same.all()
    assert ignoring.tolist() == [False] + [True] * (workers - 1)
    assert not named
    assert not multiprocessing.active_children()
    assert {process.exitcode for process in groups[0].processes.values()} == {0}
    assert all(connection.closed for connection in groups[0].connections.values())


def test_a_death_is_told_with_its_status():
    """Of a process whose pipe is closed before it has ended."""

    class Ending:
        exitcode = None

        def join(self, seconds):
            self.exitcode = 7

    group = Group("launch", 2)
    group.processes[1], (ours, theirs) = Ending(), group.context.Pipe(duplex=False)
    theirs.close()
    group._receive(1, ours)
    ours.close()
    assert "worker 1 of 2 ended with exit code 7;" in str(group.errors[1])


def test_arguments_are_copied_as_bytes():
    """Not byte by byte: 40 MB took 19 s and 470 MB of memory."""
    content = np.ones(1_000_000, "uint8")
    tracemalloc.start()
    try:
        assert launch(np.sum, 2, (content,)) == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 5 * content.nbytes
    finally:
        tracemalloc.stop()


def test_one_worker_is_a_call():
    assert launch(lambda x: (x, current_communicator().size), 1, (3,)) == (3, 1)


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("unpicklable", RuntimeError, "all ranks must run to the end, but worker 1 of 2 raised .*Unpicklable: mine"),
        ("exit at once", RuntimeError, "workers must live until the end, but worker 1 of 2 ended with exit code 0"),
        ("stop", TimeoutError, "^all_reduce: all ranks must come within 0.3 s, but rank 1 has not$"),
        slow("raise", LookupError, "^mine$"),
        slow("not loadable", RuntimeError, "but worker 1 of 2 raised .*NotLoadable: 1 and 2"),
        slow("exit", RuntimeError, "but worker 1 of 2 raised SystemExit: 3"),
        slow("kill", RuntimeError, "workers must live until the end, but worker 1 of 2 was killed by SIGKILL"),
        slow("return", RuntimeError, "but rank 0 calls all_reduce of shape .* and rank 1 has returned"),
        slow("other call", RuntimeError, "ranks must make the same calls, but rank . calls .*, and rank . calls "),
    ],
)
def test_an_error_of_one_ends_all_and_is_raised(what, kind, text):
    before = worker_count()
    with pytest.raises(kind, match=text) as caught:
        launch(programs.misbehave, 2, (what,))
    if what in ("raise", "unpicklable", "not loadable", "exit"):
        assert isinstance(caught.value.__cause__, WorkerTraceback)
        assert "in misbehave" in str(caught.value.__cause__)
    assert not multiprocessing.active_children()
    assert current_communicator().size == 1
    assert worker_count() == before


def test_a_worker_that_does_not_return_in_time_is_named(capfd, monkeypatch):
    """And what it has written is not lost."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    with pytest.raises(TimeoutError, match=r"^launch: all ranks must return within 0.05 s, but rank 1 has not$"):
        launch(programs.hang, 2, timeout=0.05)
    assert not multiprocessing.active_children()
    assert capfd.readouterr().out == "written\n"


@pytest.mark.slow
def test_an_error_of_rank_0_ends_all():
    with pytest.raises(LookupError, match="mine"):
        launch(programs.misbehave, 3, ("raise", 0))
    assert not multiprocessing.active_children()


def test_an_error_after_rank_0_has_returned_is_raised():
    with pytest.raises(LookupError, match="late"):
        launch(programs.end_late, 2, timeout=float("inf"))


@pytest.mark.slow
def test_an_interrupt_at_any_line_ends_all():
    """Each line of the main thread, from the first to the last."""
    before, places = worker_count(), []
    for place in interrupt_everywhere(lambda: launch(programs.nothing, 2), launching, processes):
        places.append(place)
        assert not multiprocessing.active_children(), place
        assert worker_count() == before, place
        assert not launching._groups, place
        assert current_communicator().size == 1, place
    assert {place.split(":")[0] for place in places} >= {"launch", "started", "start", "finish", "end"}


def test_a_start_that_fails_is_an_error(monkeypatch):
    def start(process):
        raise OSError("no process left")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    with pytest.raises(OSError, match="no process left"):
        launch(programs.nothing, 2)
    assert not launching._groups
