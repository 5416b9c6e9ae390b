"""Workers that are killed, interrupted or terminated: all end within seconds, and nothing is left.

A program runs in a session of its own, so that every process it starts can be found there.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are found in /proc")

PATIENCE = 60  # seconds; all comes within two, on an idle machine
PYTHON = [sys.executable, "-W", "error"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files of the program would be."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def running(*command):
    """A program in a session of its own; nothing of it may be left afterwards."""
    process = subprocess.Popen(
        [*PYTHON, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
        process.wait(PATIENCE)
        wait_until(lambda: not session(process.pid))
        assert not list(Path("/dev/shm").glob(f"pym-{process.pid}-*"))
    finally:
        for number in session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.communicate()


def session(leader):
    """The processes of a session that run: [(number, its parent)] without zombies."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, rest = path.parent.name, path.read_text("utf-8").rpartition(")")[2].split()
            if rest[3] == str(leader) and rest[0] not in "ZX":
                found[int(number)] = int(rest[1])
    return found


def workers(leader):
    """The processes of the other ranks."""
    names = {number: Path(f"/proc/{number}/cmdline") for number, parent in session(leader).items() if parent == leader}
    found = []
    for number, path in names.items():
        with contextlib.suppress(OSError):
            if "spawn_main" in path.read_text("utf-8"):
                found.append(number)
    return sorted(found)


EXCHANGING = ["-m", "tests.distributed.exchanging"]
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("target", "number", "code", "text"),
    [
        ("rank 0", signal.SIGKILL, -signal.SIGKILL, ""),
        ("all", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
        ("worker", signal.SIGKILL, 1, "was killed by SIGKILL"),
        pytest.param("rank 0", signal.SIGTERM, -signal.SIGTERM, "", marks=slow),
        pytest.param("rank 0", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt", marks=slow),
        pytest.param("worker", signal.SIGTERM, 1, "was killed by SIGTERM", marks=slow),
        pytest.param("all", signal.SIGKILL, -signal.SIGKILL, "", marks=slow),
    ],
)
def test_a_signal_ends_all(folder, target, number, code, text):
    with running(*EXCHANGING, "2", "600") as process:
        assert process.stdout.readline() == "begun\n"
        if target == "all":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if target == "rank 0" else workers(process.pid)[-1], number)
        errors = process.stderr.read()
    assert process.returncode == code
    assert text in errors.strip().splitlines()[-1] if text else not errors
    assert errors.count("Traceback") == bool(text)  # rank 0's alone
    assert not os.listdir(folder)


def kill_at_random(kills, seed):
    """Start the program and kill one of its processes, over and over; returns how often each end came."""
    moments, ends = random.Random(seed), {}
    for _ in range(kills):
        with running(*EXCHANGING, str(moments.choice([2, 3])), "0.5") as process:
            time.sleep(moments.uniform(0, 1.5))
            victim = moments.choice([process.pid, *workers(process.pid)])  # not Python's resource tracker
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            errors = process.stderr.read()
        end = {0: "completed", -signal.SIGKILL: "rank 0"}.get(process.returncode, "another")
        if end == "another":
            assert process.returncode == 1, errors
            assert "was killed by SIGKILL" in errors.strip().splitlines()[-1]
        ends[end] = ends.get(end, 0) + 1
    return ends


def test_two_kills(folder):
    assert sum(kill_at_random(2, seed=1).values()) == 2
    assert not os.listdir(folder)


@slow
def test_a_hundred_kills(folder):
    ends = kill_at_random(100, seed=2)
    assert ends.keys() >= {"rank 0", "another"}
    assert not os.listdir(folder)


def test_a_main_file_without_a_guard_is_named(tmp_path):
    file = tmp_path / "unguarded.py"
    file.write_text("from needle.distributed import launch\nlaunch(print, 2, ['printed'])", "utf-8")
    with running(str(file)) as process:
        errors = process.stderr.read()
    assert process.returncode == 1
    assert errors.count("Traceback") == 1
    assert 'must start workers below `if __name__ == "__main__":` only' in errors.strip().splitlines()[-1]


@slow
def test_a_main_file_that_cannot_be_imported_again_shows_its_error(tmp_path):
    program = """
        import sys
        from needle.distributed import launch

        if __name__ != "__main__":
            raise LookupError("not again")
        launch(print, 2, [])
    """
    file = tmp_path / "once.py"
    file.write_text(textwrap.dedent(program), "utf-8")
    with running(str(file)) as process:
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "LookupError: not again" in errors
    assert "worker 1 of 2 ended with exit code 1; if it had not begun, its error is printed" in errors
