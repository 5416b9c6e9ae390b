"""`--workers`: the lines and figures of one worker, how a run ends and goes on, where it does not apply."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needle as ndl
import tasks
import train
import train_ptb
import training
from needle.training import WorkerChoice
from tests.apps.scripts import ENVIRONMENT, ROOT, error_of, run, without_speed, write_digits
from tests.waiting import wait_until

SMALL = ("--batch-size", "24", "--epochs", "2", "--lr", "0.001")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Arguments of the script for 100 digits of 16x16: 4 batches and one of 4."""
    folder = write_digits(tmp_path_factory.mktemp("few"), count=100, side=16)
    return ["--dataset", "mnist", "--data", str(folder), *SMALL]


def assert_alike(one, two):
    """The rows of two runs in float32."""
    for first, second in zip(without_speed(one), without_speed(two), strict=True):
        for name, figure in first.items():  # an image, or some pixels, may fall to the other side
            assert figure == pytest.approx(second[name], rel=1e-3, abs=0.021 if "accuracy" in name else 0), name


OPTIONS = "--model lenet --augment --accumulate 2 --clip 1 --ema 0.5 --label-smoothing 0.1"


def test_the_rows_are_those_of_one_worker(digits, capsys, tmp_path):
    """With all that draws random numbers or looks at whole batches; the run goes on with one worker."""
    arguments = [*digits, *OPTIONS.split(), "--schedule", "onecycle", "--validation", "0.1"]
    one, lines = run(train, capsys, *arguments)
    two, shared = run(train, capsys, *arguments, "--workers", "2", "--out", tmp_path / "run")
    assert_alike(one, two)
    assert shared[:3] == [*lines[:2], "2 workers"]
    settings = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["settings"]
    assert settings["workers"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tinycnn", "resnet9", "conv1d", "autoencoder", "unet"])
def test_every_model_trains_by_workers(model, digits, capsys):
    one, _ = run(train, capsys, *digits, "--model", model)
    two, _ = run(train, capsys, *digits, "--model", model, "--workers", "3")
    assert_alike(one, two)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_tasks_are_found_again_by_workers(task):
    import pickle

    assert pickle.loads(pickle.dumps(tasks.TASKS[task].forward)).__self__ is tasks.TASKS[task]


def test_auto_tells_what_it_measured_and_keeps_the_number(digits, capsys, tmp_path, monkeypatch):
    choice = WorkerChoice(1, "a step takes 3 ms by 1 worker and 4 ms by 2", 0.003, 0.004)
    monkeypatch.setattr(training, "choose_workers", lambda *parts, **options: choice)
    _, lines = run(train, capsys, *digits, "--workers", "auto", "--out", tmp_path / "run")
    assert lines[2] == "1 worker: a step takes 3 ms by 1 worker and 4 ms by 2"
    settings = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["settings"]
    assert settings["workers"] == 1


def test_refusals(capsys):
    prog = Path(sys.argv[0]).name
    assert error_of(train, capsys, "--workers", "0") == [f"{prog}: error: --workers must be at least 1, but got 0"]
    assert error_of(train, capsys, "--workers", "all") == [
        f"{prog}: error: argument --workers: must be a number or auto, but got all"
    ]
    assert error_of(train_ptb, capsys, "--workers", "2") == [
        f"{prog}: error: --workers must be 1 for text, whose columns carry their state from batch to batch, but got 2"
    ]


# ---- programs --------------------------------------------------------------------------------------------------------


class Program:
    """train.py with two workers, in a group of processes of its own, after its first epoch."""

    def __init__(self, folder, arguments):
        command = [sys.executable, "apps/train.py", *arguments, "--epochs", "400", "--workers", "2", "--out", folder]
        self.lines = open(folder.with_suffix(".txt"), "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, env=ENVIRONMENT, stdout=self.lines, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: "epoch  1" in self.output() or self.process.poll() is not None)
        (self.worker,) = (pid for pid in children(self.process.pid) if "spawn_main" in command_line(pid))

    def output(self):
        return Path(self.lines.name).read_text("utf-8")

    def end(self):
        """Its status and its last lines; nothing may be left of it."""
        status = self.process.wait(30)
        wait_until(lambda: not command_line(self.worker))
        self.lines.close()
        return status, self.output().splitlines()


def children(pid):
    """The numbers of the processes that this one has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            found += [int(folder.name)] * (int(parent) == pid)
    return found


def command_line(pid):
    """How a process was started; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


has_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@has_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_ends_the_run_after_the_step(number, digits, tmp_path):
    program = Program(tmp_path / "run", digits)
    os.killpg(program.process.pid, number)
    status, lines = program.end()
    assert status == 128 + number
    (stopped,) = (line for line in lines if line.startswith("stopped after "))
    assert "of 400 epochs" in stopped
    assert "; to go on: python apps/train.py --resume " in stopped
    assert ndl.load(tmp_path / "run" / "last.npz")["epoch"] == sum(line.startswith("epoch ") for line in lines)


@has_proc
@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_in_a_line(digits, tmp_path):
    program = Program(tmp_path / "run", digits)
    start = time.monotonic()
    os.kill(program.worker, signal.SIGKILL)
    status, lines = program.end()
    assert status == 2
    assert time.monotonic() - start < 20
    assert "fit: workers must live until the end, but worker 1 of 2 was killed by SIGKILL; to go on: " in lines[-1]
    assert (tmp_path / "run" / "last.npz").exists()


@has_proc
@pytest.mark.slow
def test_workers_end_with_a_first_one_that_is_killed(digits, tmp_path):
    program = Program(tmp_path / "run", digits)
    os.kill(program.process.pid, signal.SIGKILL)
    assert program.end()[0] == -signal.SIGKILL
