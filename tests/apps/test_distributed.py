"""`--distributed`: one run in several ranks, how it ends and goes on, where it does not apply."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

import evaluate
import needle as ndl
import predict
import summary
import train
import train_cifar10
import train_ptb
import training
from tests.apps.scripts import error_of, read_metrics, run, without_speed, write_digits
from tests.apps.test_workers import SMALL, assert_alike, command_line, has_proc
from tests.distributed.mpi import ranks
from tests.waiting import wait_until

OPTIONS = "--model lenet --augment --accumulate 2 --clip 1 --ema 0.5 --label-smoothing 0.1"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Arguments of the script for 100 digits of 16x16: 4 batches and one of 4."""
    folder = write_digits(tmp_path_factory.mktemp("few"), count=100, side=16)
    return ["--dataset", "mnist", "--data", str(folder), *SMALL]


def start(size, *arguments):
    """The script in ranks; warnings are errors."""
    command = ["python", "apps/train.py", "--distributed", *map(str, arguments)]
    return ranks.start(size, command, environment={"PYTHONWARNINGS": "error"})


def end_of(size, *arguments):
    """The exit status, the lines and the errors of the script in ranks."""
    with start(size, *arguments) as started:
        status = started.wait()
        return status, started.output.splitlines(), started.errors


@pytest.mark.parametrize("sizes", [(2, 3), pytest.param((8, 3), marks=pytest.mark.slow)])
def test_the_run_is_that_of_one_process_and_goes_on_with_any_number(sizes, digits, capsys, tmp_path):
    """With all that draws random numbers or looks at whole batches."""
    folder = tmp_path / "run"
    options = [*OPTIONS.split(), "--validation", "0.1"]
    one, lines = run(train, capsys, *digits, *options, "--epochs", "4")
    status, shared, words = end_of(sizes[0], *digits, *options, "--out", folder)
    assert (status, words) == (0, "")
    assert shared[:3] == [*lines[:2], f"{sizes[0]} ranks"]
    assert [line.split(":")[0] for line in shared[3:5]] == ["epoch  1", "epoch  2"]
    assert shared[5].startswith("after epoch ")
    assert shared[6:] == [f"see {folder / 'report.html'}"]
    status, shared, words = end_of(sizes[1], "--resume", folder, "--epochs", "3")
    assert (status, words) == (0, "")
    assert shared[2:4] == [f"{sizes[1]} ranks", "goes on after 2 of 3 epochs"]
    run(train, capsys, "--resume", folder, "--epochs", "4")
    assert_alike(one, read_metrics(folder)[1])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    begins = [command.partition(" apps/")[0] for command in config["commands"][:2]]
    assert begins == [f"mpiexec -n {size} python" for size in sizes]
    assert config["commands"][2].startswith("python ")


def test_stages_end_together_and_rank_0_tells_why():
    path = os.pathsep.join(map(str, (ranks.ROOT, ranks.ROOT / "apps")))
    first, *others = ranks.run(3, "stages", environment={"PYTHONPATH": path})
    missing = "train: a file must be there, but {} is not"
    differ = "train: the data must be the same for all ranks, but checksum is b on rank 2, not a\n"
    assert first == {
        "all is well": (None, "", 0),
        "all fail": (2, f"{missing.format(0)}\n", None),
        "one fails": (2, f"{missing.format(1)} (on rank 1 of 3)\n", None),
        "the first tells": (None, "careful\n", {"rank": 0}),
        "another tells": (None, "", False),  # nothing
        "the first is called": (None, "", [0]),
        "the first leaves": (2, "train: error: no\n", None),
        "help": (0, "", None),
        "other data": (2, differ, None),
        "the data": (None, "", None),
        "names": (None, "", (True, "rank 0 of 3", "mpiexec -n 3 ")),
    }
    for rank, results in enumerate(others, 1):
        expected = {name: (status, "", result) for name, (status, _, result) in first.items()}
        expected["all is well"] = (None, "", rank)
        expected["the first is called"] = (None, "", [])
        expected["names"] = (None, "", (False, f"rank {rank} of 3", "mpiexec -n 3 "))
        assert results == expected


def test_without_mpiexec_it_is_a_run_alone(digits, capsys):
    one, lines = run(train, capsys, *digits)
    alone, told = run(train, capsys, *digits, "--distributed")
    assert without_speed(alone) == without_speed(one)
    assert told[:2] == lines[:2]


def test_refusals(capsys):
    begin = f"{Path(sys.argv[0]).name}: error: "
    one = "--compress is for processes of --workers or --distributed, but there is only one"
    two = "--workers must be 1 with --distributed, where mpiexec starts them, but got {}"
    text = "--distributed is for images: columns of text carry their state from batch to batch"
    assert error_of(train, capsys, "--compress", "float16") == [begin + one]
    assert error_of(train, capsys, "--distributed", "--workers", "2") == [begin + two.format(2)]
    assert error_of(train_cifar10, capsys, "--distributed", "--workers", "auto") == [begin + two.format("auto")]
    assert error_of(train_ptb, capsys, "--distributed") == [begin + text]


TWO = {"PMI_SIZE": "2", "PMI_RANK": "0"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (train, "each would train a network of its own; add --distributed"),
        (train_cifar10, "each would train a network of its own; add --distributed"),
        (train_ptb, "each would do the same; run it alone"),
        (evaluate, "each would do the same; run it alone"),
        (predict, "each would do the same; run it alone"),
        (summary, "each would do the same; run it alone"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ranks_that_would_do_the_same_are_refused_before_anything_is_read(script, reason, capsys, monkeypatch):
    with mock.patch.dict(os.environ, TWO):
        text = f"{script.__name__}: a launcher has started 2 processes (PMI_SIZE=2), and {reason}"
        assert error_of(script, capsys, "--out", "/none", "--no-such-option") == [text]
        monkeypatch.setattr("ranks.SILENCE", 0)
        monkeypatch.setenv("PMI_RANK", "1")
        assert error_of(script, capsys) == []


@pytest.mark.slow
def test_ranks_without_the_option_are_refused_once(tmp_path):
    with ranks.start(3, ["python", "apps/train.py", "--out", str(tmp_path / "run")]) as started:
        assert started.wait() == 2
        assert started.errors.count("train: a launcher has started 3 processes (") == 1
        assert started.output == ""
    assert not (tmp_path / "run").exists()


def test_what_join_refuses_is_told_in_a_line(capsys, monkeypatch):
    def join():
        raise RuntimeError("join: an MPI library must be installed")

    monkeypatch.setattr("ranks.join", join)
    assert error_of(train, capsys, "--distributed") == ["train: join: an MPI library must be installed"]


def test_ranks_compare_the_data_before_they_train(digits, capsys, monkeypatch):
    def differ(data):
        assert data["checksum"]
        raise ValueError("the data must be the same for all ranks")

    monkeypatch.setattr("ranks.check_alike", differ)
    assert error_of(train, capsys, *digits) == ["train: the data must be the same for all ranks"]


def test_a_rank_after_the_first_has_no_folder(digits, capsys, tmp_path, monkeypatch):
    first = training._train

    def train_as_another(run):
        monkeypatch.setattr("ranks.is_first", lambda: False)
        return first(run)

    monkeypatch.setattr(training, "_train", train_as_another)
    run(train, capsys, *digits, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- programs --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tinycnn", "resnet9", "conv1d", "autoencoder", "unet"])
def test_every_model_trains_in_ranks(model, digits, capsys, tmp_path):
    one, _ = run(train, capsys, *digits, "--model", model)
    status, _, words = end_of(3, *digits, "--model", model, "--out", tmp_path / "run")
    assert (status, words) == (0, "")
    assert_alike(one, read_metrics(tmp_path / "run")[1])


@pytest.mark.slow
def test_workers_and_ranks_have_the_same_bits(digits, capsys, tmp_path):
    options = [*digits, "--compress", "bfloat16"]
    workers, _ = run(train, capsys, *options, "--workers", "2")
    status, _, words = end_of(2, *options, "--out", tmp_path / "run")
    assert (status, words) == (0, "")
    assert without_speed(read_metrics(tmp_path / "run")[1]) == without_speed(workers)
    exact, _ = run(train, capsys, *digits, "--workers", "2")
    assert without_speed(exact) != without_speed(workers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--lr", "x"], "train.py: error: argument --lr: invalid float value: 'x'"),
        (["--out", "/proc/version/run"], "train: --out must be a folder, or a new one, but /proc/version/run: "),
        (["--dataset", "mnist", "--data", "/none"], "train: idx_files: folder must hold one of "),
        (["--resume", "/none"], "train: RUN must be the folder of a run, but there is no /none/config.json"),
        (["--patience", "2"], "train: --patience needs --validation FRACTION"),
        (["--lr", "1e38"], "stopped after 0 of 15 epochs and 1 of 23 batches: fit: the loss must be finite, "),
    ],
)
def test_errors_are_shown_once(arguments, told):
    status, _, words = end_of(3, *arguments)
    assert status == 2
    assert words.count(told) == 1
    assert [line for line in words.splitlines() if line.startswith(("train", "stopped"))] == [
        line for line in words.splitlines() if line.startswith(told)
    ]
    assert "Traceback" not in words


@pytest.fixture
def endless(digits, tmp_path):
    """A run of 3 ranks that has saved its first epoch, its folder, and the processes of its ranks."""
    folder = tmp_path / "run"
    with start(3, *digits, "--epochs", "4000", "--out", folder) as started:
        wait_until(lambda: "epoch  2" in started.output or started.process.poll() is not None)
        pids = [pid for pid in started.pids() if "apps/train.py" in command_line(pid).split("\0")[1]]
        assert len(pids) == 3, started.errors
        yield started, folder, pids
        assert started.end() == []


def stopped_line(started):
    """What the run says once it has saved, within 10 seconds of a signal; the report may take longer."""
    wait_until(lambda: "\nstopped " in started.errors, 10)
    (line,) = (line for line in started.errors.splitlines() if line.startswith("stopped "))
    return line


@has_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_ranks_ends_the_run_after_the_step(number, endless):
    started, folder, pids = endless
    for pid in pids:
        os.kill(pid, number)
    line = stopped_line(started)
    assert started.wait() == 128 + number
    assert line.startswith("stopped after ")
    assert line.endswith(f"; to go on: mpiexec -n 3 python apps/train.py --distributed --resume {folder}")
    assert started.errors.count(f"{number.name}: stopping after this step") == 1
    assert ndl.load(folder / "last.npz")["epoch"] == started.output.count("\nepoch ")


@has_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_mpiexec_ends_the_run(number, endless):
    started, folder, _ = endless
    os.kill(started.process.pid, number)
    if ranks.is_open_mpi(ranks.launcher()[0][0]):  # it kills its ranks
        assert started.wait(10) != 0
    else:
        assert stopped_line(started).startswith("stopped after ")
        assert started.wait() == 128 + number
    assert ndl.load(folder / "last.npz")["epoch"] >= 1


@has_proc
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_is_killed_ends_the_run_which_goes_on(rank, endless):
    started, folder, pids = endless
    begin = time.monotonic()
    os.kill(pids[rank], signal.SIGKILL)
    assert started.wait(20) != 0
    assert time.monotonic() - begin < 10
    epoch = ndl.load(folder / "last.npz")["epoch"]
    with start(2, "--resume", folder) as resumed:
        wait_until(lambda: f"\nepoch {epoch + 1:2}: " in resumed.output or resumed.process.poll() is not None)
        assert f"\n2 ranks\ngoes on after {epoch} of 4000 epochs" in resumed.output, resumed.errors
