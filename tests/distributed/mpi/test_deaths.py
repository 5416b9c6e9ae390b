"""Ranks that fail, are killed, interrupted or leave: all end within seconds, with one message and a status.

`NEEDLE_MPIEXEC` names another launcher than the first `mpiexec`, which brings its own Python.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import itertools
import os
import random
import re
import signal
import time

import pytest

from tests.distributed.mpi.ranks import is_open_mpi, launcher, start
from tests.waiting import wait_until

slow = pytest.mark.slow
LIMIT = 40  # seconds for a run on a busy machine; alone it takes two


@contextlib.contextmanager
def running(size, deed="", doers="", **options):
    """Ranks of the program `joined`; at the end nothing of them may be left."""
    with start(size, ["python", "-W", "error", "-m", "tests.distributed.mpi.joined", deed, doers], **options) as run:
        yield run
        run.status = run.wait(LIMIT)
        wait_until(lambda: not run.pids())


def begun(run):
    """What the ranks have said at the start: [rank, process, threads, numbers drawn]."""
    wait_until(lambda: "]]" in run.output or run.process.poll() is not None)
    assert "]]" in run.output, run.errors
    return ast.literal_eval(run.output[: run.output.index("]]") + 2])


def own_words(errors):
    """What the ranks have written, without the launcher's remarks; one of Open MPI may come before or after."""
    rest = re.sub(r"^-{70,}\n.*?^-{70,}\n", "", errors.replace("\0", ""), flags=re.MULTILINE | re.DOTALL)
    lines = rest.strip().splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith(("=====", "[mpiexec@"))]
    return [line for line in lines[: min(ends, default=None)] if line.strip() and "ORTE_ERROR_LOG" not in line]


ENDS = [  # size, deed, by which ranks, status, the last lines of the one message
    (3, "raise", "1", 1, ["LookupError: mine", "This was rank 1 of 3; all end."]),
    (3, "raise", "0,1,2", 1, ["LookupError: mine", "This was rank ? of 3; all end."]),
    (2, "raise beside work", "1", 1, ["LookupError: mine", "This was rank 1 of 2; all end."]),
    (2, "exit 3", "1", 3, ["rank 1 of 2 has left with status 3, so all end"]),
    (2, "interrupt", "0", 130, ["KeyboardInterrupt", "This was rank 0 of 2; all end."]),
    pytest.param(2, "raise", "0", 1, ["LookupError: mine", "This was rank 0 of 2; all end."], marks=slow),
    pytest.param(4, "raise", "2,3", 1, ["LookupError: mine", "This was rank ? of 4; all end."], marks=slow),
    pytest.param(4, "raise beside work", "0", 1, ["LookupError: mine", "This was rank 0 of 4; all end."], marks=slow),
    pytest.param(4, "exit 3", "1,2,3", 3, ["rank ? of 4 has left with status 3, so all end"], marks=slow),
    pytest.param(2, "exit 3", "0", 3, [], marks=slow),
    pytest.param(2, "exit text", "0", 1, ["why"], marks=slow),
    pytest.param(4, "exit text", "3", 1, ["why"], marks=slow),
]


@pytest.mark.parametrize(("size", "deed", "doers", "status", "words"), ENDS)
def test_a_failure_ends_all_with_one_message(size, deed, doers, status, words):
    with running(size, deed, doers) as run:
        begun(run)
    assert run.status == status, run.errors
    written = own_words(run.errors)
    for text, pattern in zip(written[len(written) - len(words) :], words, strict=True):
        assert fnmatch.fnmatchcase(text, pattern)
    is_raised = len(words) > 1
    assert sum("Traceback" in line for line in written) == is_raised
    assert len(written) == len(words) or is_raised
    assert "goes on" not in run.output


@pytest.mark.parametrize("doers", ["1", pytest.param("0", marks=slow)])
def test_who_reads_the_message_late_gets_it(doers, tmp_path):
    """A launcher on a busy machine does not read at once, and MPICH's loses what it finds after MPI_Abort."""
    path = tmp_path / "read"
    with running(2, "raise before a late reader", doers, environment={"NEEDLE_READ": str(path)}):
        pass
    assert path.exists(), "all had ended before"
    assert path.read_text().splitlines()[-2:] == ["LookupError: mine", f"This was rank {doers} of 2; all end."]


@pytest.mark.parametrize("doers", ["1", pytest.param("0", marks=slow)])
def test_a_rank_that_returns_early_is_named(doers):
    with running(2, "return", doers) as run:
        begun(run)
    assert run.status == 1
    message, hint, note = own_words(run.errors)[-3:]
    assert "all_reduce: all ranks must make the same calls" in message or doers == "0"
    assert f"rank {doers} has returned" in message
    assert "SharedGradients and Shard exchange, so all ranks must call them." in hint
    assert note == "This was rank 0 of 2; all end."


@pytest.mark.parametrize(
    ("size", "deed", "doers", "words"),
    [
        (3, "stop", "1", "all_reduce: all ranks must come within 2 s, but rank 1 has not"),
        pytest.param(2, "stop", "0", "all_reduce: all ranks must come within 2 s, but rank 0 has not", marks=slow),
        pytest.param(4, "stop", "0,2", "*: all ranks must * within 2 s, but ranks 0 and 2 have not", marks=slow),
        pytest.param(
            3, "stop in the end", "1", "return: all ranks must come within 2 s, but rank 1 has not", marks=slow
        ),
    ],
)
def test_a_rank_that_hangs_is_named_and_ends_all(size, deed, doers, words):
    with running(size, deed, doers) as run:
        begun(run)
    assert run.status == 1
    message, note = own_words(run.errors)[-2:]
    assert fnmatch.fnmatchcase(message, f"TimeoutError: {words}")
    assert note in {f"This was rank {rank} of {size}; all end." for rank in range(size) if str(rank) not in doers}
    assert sum("Traceback" in line for line in own_words(run.errors)) == 1


@pytest.mark.parametrize(("size", "doers"), [(2, "0"), pytest.param(4, "1,2", marks=slow)])
def test_a_rank_that_fails_between_blocks_ends_all(size, doers):
    with running(size, "fail between", doers) as run:
        begun(run)
    assert run.status == 1
    written = own_words(run.errors)
    assert "LookupError: mine" in written
    expected = f"RuntimeError: join: all ranks must join again, but rank [{doers}] has ended"
    assert any(fnmatch.fnmatchcase(line, expected) for line in written), run.errors
    assert "goes on" not in run.output


@pytest.mark.parametrize(
    ("size", "deed", "doers"),
    [
        (2, "kill", "1"),
        pytest.param(2, "kill", "0", marks=slow),
        pytest.param(4, "kill", "3", marks=slow),
        pytest.param(4, "kill", "0,2", marks=slow),
        pytest.param(2, "terminate", "0", marks=slow),
        pytest.param(4, "terminate", "3", marks=slow),
    ],
)
def test_a_death_ends_all(size, deed, doers):
    with running(size, deed, doers) as run:
        begun(run)
    assert run.status not in (0, None)
    assert "Traceback" not in run.errors
    assert "goes on" not in run.output


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("SIGINT", 2),
        pytest.param("SIGINT", 4, marks=slow),
        pytest.param("SIGTERM", 2, marks=slow),
        pytest.param("SIGKILL", 3, marks=slow),
    ],
)
def test_a_signal_to_mpiexec_ends_all(name, size):
    with running(size) as run:
        begun(run)
        run.process.send_signal(signal.Signals[name])
    assert run.status != 0
    assert "goes on" not in run.output
    if name == "SIGINT" and not is_open_mpi(launcher()[0][0]):  # that of Open MPI sends SIGTERM
        assert run.status == 130
        assert sum("KeyboardInterrupt" in line for line in run.errors.splitlines()) == 1


@slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_at_any_line_of_join_keeps_nobody_waiting(rank):
    for number in itertools.count(rank, 13):
        command = ["python", "-m", "tests.distributed.mpi.interrupted", str(rank), str(number)]
        with start(2, command) as run:
            status = run.wait(LIMIT)
            wait_until(lambda run=run: not run.pids())
        place = run.output.partition(":")[0].split()[-1]
        if "all lines" in run.output:
            break
        if place in ("meet", "_begin_alike"):  # rank 0's ends all, another rank ignores it
            assert status == (130 if rank == 0 else 0), run.errors
    assert number > 100
    assert status == 0


def test_ranks_begin_alike_and_return():
    with running(2, "exit 0", "0,1") as run:
        ranks = begun(run)
    assert run.status == 0, run.errors
    assert not run.errors
    assert [rank[0] for rank in ranks] == [0, 1]
    assert ranks[0][1] != ranks[1][1]
    assert [rank[2] for rank in ranks] == [1, 1]  # OMP_NUM_THREADS, which the harness sets
    assert ranks[0][3:] == ranks[1][3:]


HELD = """
import sys
from mpi4py import MPI
from needle import distributed

def held():
    with distributed.join() as communicator:
        yield communicator

block = held()
communicator = next(block)
if sys.argv[1] == "ends":
    sys.exit()
if sys.argv[1] == "closed early" and communicator.rank == 0:
    communicator.barrier()
block.close()
MPI.Finalize()
sys.stdout.write("goes on\\n")
"""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("closed", ""),
        ("closed early", "barrier: all ranks must make the same calls, but .* rank 1 has returned"),
        ("ends", r"rank 0 of 2 has ended its program within `join`, so all end"),
    ],
)
def test_a_generator_may_hold_the_block(how, words):
    """To close it is to leave the block, behind which a program may end MPI itself."""
    with start(2, ["python", "-W", "error", "-c", HELD, how]) as run:
        assert run.wait(LIMIT) == bool(words), run.errors
    assert re.search(words, run.errors) if words else not own_words(run.errors), run.errors
    assert run.output.count("goes on") == (0 if words else 2)


@slow
def test_ranks_go_on_behind_the_block():
    with running(3, "return", "0,1,2") as run:
        begun(run)
    assert run.status == 0, run.errors
    assert sorted(run.output.splitlines()[1:]) == [f"rank {rank} goes on" for rank in range(3)]


@slow
@pytest.mark.parametrize("doers", ["0", "1"])
def test_a_rank_that_dies_before_it_joins_is_missed(doers):
    """The launcher of MPICH does not end the others; `join` waits for 120 s, here 3."""
    with running(2, "die before", doers) as run:
        pass
    assert run.status != 0
    if is_open_mpi(launcher()[0][0]):
        return
    written = own_words(run.errors)
    assert written[0] == "Timeout (0:00:03)!"
    assert any("in _wait_for_all_ranks" in line for line in written)


@slow
def test_ranks_killed_at_random():
    moments = random.Random(3)
    for _ in range(12):
        with running(moments.choice([2, 3])) as run:
            time.sleep(moments.uniform(0, 2.5))
            victims = [pid for pid in run.pids() if is_rank(pid)]
            if victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(moments.choice(victims), signal.SIGKILL)
            else:
                run.process.kill()
        assert run.status not in (0, None)


def is_rank(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
        return b"tests.distributed.mpi.joined" in words and b"-n" not in words
    return False
