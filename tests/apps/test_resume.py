"""Runs in folders: stopped anywhere and resumed they are the uninterrupted ones, bit for bit; and what is refused."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest

import needle as ndl
import run_folder
import synthetic
import train
import train_cifar10
import train_ptb
import training
from tests.apps.scripts import (
    ENVIRONMENT,
    ROOT,
    error_of,
    popen,
    read_metrics,
    run,
    state_of,
    without_speed,
    write_digits,
    write_texts,
)


def title(value):
    return " ".join(value) if isinstance(value, list) else getattr(value, "__name__", "")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """For each script the arguments of a short run of 3 epochs with several batches."""
    folder = tmp_path_factory.mktemp("small")
    images = folder / "images"
    images.mkdir()
    synthetic.write_cifar10(images, per_file=10)
    digits = write_digits(folder / "digits")
    return {
        train: ["--dataset", "mnist", "--data", digits, "--epochs", "3", "--batch-size", "32"],
        train_cifar10: ["--data", images, "--epochs", "3", "--batch-size", "20"],
        train_ptb: ["--data", write_texts(folder / "text"), "--epochs", "3", "--batch-size", "4", "--seq-len", "4",
                    "--hidden-size", "8", "--embedding-size", "8"],
    }  # fmt: skip


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """Reports take longer than these runs: they are only counted."""
    calls = []
    monkeypatch.setattr(training, "report", lambda *arguments: calls.append(arguments))
    return calls


def stop_at(monkeypatch, epoch, batch, *signals):
    """Let signals arrive after a batch of an epoch."""

    def on_step(self, state):
        if (state.epoch, state.batch) == (epoch, batch):
            for number in signals:
                signal.raise_signal(number)

    monkeypatch.setattr(training.Lines, "on_step", on_step, raising=False)


def interrupted(script, capsys, monkeypatch, arguments, epoch, batch, number=signal.SIGINT):
    """Run a script until a signal after a batch; returns the last line of stderr."""
    with monkeypatch.context() as patch:
        stop_at(patch, epoch, batch, number)
        with pytest.raises(SystemExit) as caught:
            script.main([str(argument) for argument in arguments])
    assert caught.value.code == 128 + number
    return capsys.readouterr().err.splitlines()[-1]


# ---- bit for bit -----------------------------------------------------------------------------------------------------

VALIDATED = ["--validation", "0.25"]
CASES = [
    (train, []),
    (train, ["--augment", "--accumulate", "2", "--clip", "0.1", "--schedule", "cosine", "--warmup", "1.3"]),
    (train, [*VALIDATED, "--patience", "1", "--optimizer", "sgd", "--momentum", "0.9", "--schedule", "onecycle"]),
    (train, [*VALIDATED, "--schedule", "plateau", "--drop-after", "1", "--model", "unet"]),
    (train, ["--model", "autoencoder", "--optimizer", "nadam"]),
    (train_cifar10, ["--augment", "--label-smoothing", "0.1", "--schedule", "step", "--drop-after", "1"]),
    (train_ptb, []),
    (train_ptb, ["--model", "transformer", "--accumulate", "2", *VALIDATED]),
]


@pytest.mark.parametrize(("script", "options"), CASES, ids=title)
def test_a_resumed_run_is_the_uninterrupted_one(script, options, small, tmp_path, capsys, monkeypatch):
    arguments = [*small[script], *options]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    rows, _ = run(script, capsys, *arguments, "--out", whole)
    advice = f"to go on: python apps/{script.__name__}.py --resume {stopped}"
    for start, epoch, batch in (([*arguments, "--out", stopped], 0, 1), (["--resume", stopped], 1, 2)):
        line = interrupted(script, capsys, monkeypatch, start, epoch, batch)
        assert re.fullmatch(rf"stopped after {epoch} of 3 epochs and {batch} of \d batches; {advice}", line)
    resumed_rows, lines = run(script, capsys, "--resume", stopped)
    assert re.fullmatch(r"goes on after 1 of 3 epochs and 2 of \d batches", lines[2])
    assert without_speed(resumed_rows) == without_speed(rows)
    assert read_metrics(stopped)[1] == resumed_rows
    assert state_of(stopped) == state_of(whole)
    assert state_of(stopped, "best") == state_of(whole, "best")
    assert sorted(path.name for path in stopped.iterdir()) == ["best.npz", "config.json", "last.npz", "metrics.csv"]


def test_the_folder_tells_of_every_command(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/bin/python3", "apps/train.py", "a b"])
    interrupted(train, capsys, monkeypatch, [*small[train], "--out", tmp_path, "--seed", "3"], 1, 1)
    first = json.loads((tmp_path / "config.json").read_text("utf-8"))
    run(train, capsys, "--resume", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config == {**first, "commands": ["python apps/train.py 'a b'"] * 2}
    assert (config["script"], config["task"], config["model"]) == ("train", "classification", "TinyCNN")
    assert (config["settings"]["seed"], config["settings"]["lr"], config["settings"]["epochs"]) == (3, 0.002, 3)
    assert (config["classes"], config["shape"]) == ([*"0123456789"], [1, 8, 8])
    assert config["versions"]["needle"] == ndl.__version__


# ---- the end of a run ------------------------------------------------------------------------------------------------


def test_sigterm_is_status_143(small, tmp_path, capsys, monkeypatch):
    interrupted(train, capsys, monkeypatch, [*small[train], "--out", tmp_path], 1, 1, signal.SIGTERM)


def test_a_stopped_run_without_a_folder_says_that_nothing_was_saved(small, capsys, monkeypatch):
    line = interrupted(train, capsys, monkeypatch, small[train], 1, 1)
    assert line == "stopped after 1 of 3 epochs and 1 of 3 batches; nothing was saved, since there was no --out RUN"


def test_a_second_ctrl_c_ends_at_once_and_the_run_can_go_on(small, tmp_path, capsys, monkeypatch):
    for name, options, saved in (("epoch", [], ""), ("batch", ["--save-every", "1"], " and 1 of 3 batches")):
        with monkeypatch.context() as patch:
            stop_at(patch, 1, 2, signal.SIGINT, signal.SIGINT)
            with pytest.raises(SystemExit) as caught:
                train.main([*map(str, small[train]), *options, "--out", str(tmp_path / name)])
        assert caught.value.code == 130
        assert capsys.readouterr().err.splitlines()[-1].startswith("stopped after 1 of 3 epochs and 2 of 3 batches; to")
        _, lines = run(train, capsys, "--resume", tmp_path / name, "--save-every", "2")
        assert lines[2] == f"goes on after 1 of 3 epochs{saved}"
    assert state_of(tmp_path / "epoch") == state_of(tmp_path / "batch")


def test_early_stopping_ends_a_run_and_says_so(small, tmp_path, capsys, reports):
    arguments = [*VALIDATED, "--patience", "1", "--lr", "1e-9", "--epochs", "9"]
    rows, lines = run(train, capsys, *small[train], *arguments, "--out", tmp_path)
    assert len(rows) < 9
    assert f"no progress in 1 epoch: ended after {len(rows)} of 9 epochs" in lines
    best = max(range(len(rows)), key=lambda index: rows[index]["val_accuracy"])
    assert lines[-2].startswith(f"after epoch {best + 1}: test loss ")
    ((*_, status, epoch),) = reports
    assert (status, epoch) == (f"ended after {len(rows)} of 9 epochs", best + 1)
    _, without = run(train, capsys, *small[train], *arguments)
    assert without[-1] == lines[-2]  # the weights of that epoch are kept in memory


def test_more_epochs_where_the_schedule_does_not_depend_on_them(small, tmp_path, capsys):
    whole, raised = tmp_path / "whole", tmp_path / "raised"
    run(train, capsys, *small[train], "--warmup", "1", "--epochs", "4", "--out", whole)
    run(train, capsys, *small[train], "--warmup", "1", "--epochs", "2", "--out", raised)
    rows, _ = run(train, capsys, "--resume", raised, "--epochs", "4", "--warmup", "1")
    assert len(rows) == 4
    assert state_of(raised) == state_of(whole)
    _, lines = run(train, capsys, "--resume", raised)  # there is nothing left to do
    assert lines[2:] == ["goes on after 4 of 4 epochs", f"see {raised / 'report.html'}"]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """The folder of a run of 3 epochs with a cosine."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "report", lambda *arguments: None)
        train.main([*map(str, small[train]), "--schedule", "cosine", "--out", str(folder)])
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("script", [train, train_cifar10, train_ptb])
def test_a_second_run_does_not_destroy_the_first(script, small, copied, capsys):
    before = content(copied)
    (line,) = error_of(script, capsys, *small[script], "--out", copied)
    assert line == (
        f"{script.__name__}: --out must be a folder without a run, but {copied} holds config.json; "
        f"continue that run with --resume {copied}, or choose another folder"
    )
    assert content(copied) == before


@pytest.mark.parametrize("name", ["metrics.csv", "last.npz", "best.npz", "report.html"])
def test_files_of_a_run_without_its_settings_are_kept_as_well(name, small, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    assert f"but {tmp_path} holds {name}" in error_of(train, capsys, *small[train], "--out", tmp_path)[0]
    assert content(tmp_path) == {name: b"mine"}


def test_a_folder_with_other_files_may_be_used(small, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    run(train, capsys, *small[train], "--epochs", "1", "--out", tmp_path)
    assert content(tmp_path)["notes.txt"] == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.1"], "--lr must be as in the run, 0.002; leave it out, or start another with --out"),
        (["--augment"], "--augment must be as in the run, not given; leave it out, or start another with --out"),
        (["--model", "lenet"], "--model must be as in the run, tinycnn; leave it out, or start another with --out"),
        (["--epochs", "4"], "--epochs must stay 3: the learning rates of cosine depend on it"),
        (["--lr", "0"], "--lr must be finite and greater than 0, but got 0.0"),
    ],
    ids=title,
)
def test_options_that_contradict_the_run(arguments, message, copied, capsys):
    before = content(copied)
    lines = error_of(train, capsys, "--resume", copied, *arguments)
    assert lines[-1].endswith(f"error: {message}")
    assert content(copied) == before


def test_fewer_epochs(small, tmp_path, capsys):
    run(train, capsys, *small[train], "--out", tmp_path)
    lines = error_of(train, capsys, "--resume", tmp_path, "--epochs", "2")
    assert lines[-1].endswith("error: --epochs must be at least the 3 of the run, but got 2")


def test_options_that_agree_with_the_run(small, copied, capsys):
    run(train, capsys, "--resume", copied, *small[train], "--schedule", "cosine", "--lr", "0.002")


def test_a_folder_that_is_no_run(tmp_path, capsys):
    (line,) = error_of(train, capsys, "--resume", tmp_path)
    assert line == f"train: RUN must be the folder of a run, but there is no {tmp_path / 'config.json'}"


def test_a_run_of_another_script(copied, capsys):
    (line,) = error_of(train_ptb, capsys, "--resume", copied)
    assert line == f"train_ptb: --resume must be a run of train_ptb.py, but {copied} is one of train.py"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "damaged: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (lambda text: text[:-9], "damaged: JSONDecodeError: "),
        (lambda text: "[" * 100_000, "damaged: RecursionError: "),
        (lambda text: "[]", "damaged: TypeError: "),
        (lambda text: "{}", "damaged: KeyError: 'script'"),
        (lambda text: text.replace('"settings": {', '"settings": [], "more": {'), "'settings' must be a dict"),
        (lambda text: text.replace('"epochs": 3', '"epochs": "many"'), "argument --epochs: invalid int value: 'many'"),
        (lambda text: text.replace('"epochs": 3', '"epochs": -3'), "--epochs must be at least 1, but got -3"),
        (lambda text: text.replace('"seed"', '"sead"'), "unrecognized arguments: --sead=0"),
        (lambda text: text.replace('"seed": 0', '"seed": [0]'), "argument --seed: invalid int value: '[0]'"),
    ],
)
def test_a_damaged_config(change, message, copied, capsys):
    path = copied / "config.json"
    path.write_text(change(path.read_text("utf-8")), "utf-8")
    (line,) = error_of(train, capsys, "--resume", copied)
    assert line.startswith("train: ")
    assert str(copied) in line
    assert message in line


def test_a_damaged_checkpoint(copied, capsys):
    whole = (copied / "last.npz").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:500] + bytes(50) + whole[550:]):
        (copied / "last.npz").write_bytes(damaged)
        before = content(copied)
        (line,) = error_of(train, capsys, "--resume", copied)
        assert line.startswith("train: ")
        assert "last.npz" in line
        assert content(copied)["best.npz"] == before["best.npz"]
    (copied / "last.npz").unlink()
    assert "last.npz" in error_of(train, capsys, "--resume", copied)[0]


def test_a_damaged_best_checkpoint(copied, capsys):
    (copied / "best.npz").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as caught:
        train.main(["--resume", str(copied)])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith("train: load: path must be a whole .npz file")
    assert str(copied / "best.npz") in line


def test_a_run_that_was_killed_before_its_first_checkpoint_begins(finished, copied, capsys):
    (copied / "last.npz").unlink()
    (copied / "best.npz").unlink()
    _, lines = run(train, capsys, "--resume", copied)
    assert lines[2] == "goes on after 0 of 3 epochs"
    assert state_of(copied) == state_of(finished)


def test_a_checkpoint_of_another_network(small, copied, tmp_path, capsys):
    run(train, capsys, *small[train], "--model", "conv1d", "--schedule", "cosine", "--out", tmp_path / "other")
    shutil.copy(tmp_path / "other" / "last.npz", copied)
    before = (copied / "last.npz").read_bytes()
    (line,) = error_of(train, capsys, "--resume", copied)
    assert line.startswith("train: ")
    assert (copied / "last.npz").read_bytes() == before


def test_other_data_than_those_of_the_run(copied, tmp_path, capsys):
    moved = write_digits(tmp_path / "moved")
    run(train, capsys, "--resume", copied, "--data", moved)  # the same, elsewhere
    (line,) = error_of(train, capsys, "--resume", copied, "--data", write_digits(tmp_path / "more", count=98))
    assert line == f"train: the data must be those that {copied} began with, but train is 98, not 96"
    path = moved / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    (line,) = error_of(train, capsys, "--resume", copied, "--data", moved)
    assert re.search(r"began with, but checksum is [0-9a-f]{8}, not [0-9a-f]{8}$", line)


def test_two_processes_do_not_share_a_folder(copied, capsys):
    with run_folder.RunFolder(copied) as folder:
        folder.resume(run_folder.read_config(copied))
        (line,) = error_of(train, capsys, "--resume", copied)
    assert line == f"train: {copied} must be used by one process at a time, but another one has it"
    run(train, capsys, "--resume", copied)


def test_the_later_of_two_new_runs_leaves_the_folder_to_the_first(small, tmp_path, capsys, monkeypatch):
    first, own = run_folder.RunFolder(tmp_path), run_folder.RunFolder._own

    def overtaken(folder):
        if folder is not first and not first.config:
            first.create({"parameters": 1})
        own(folder)

    monkeypatch.setattr(run_folder.RunFolder, "_own", overtaken)
    with first:
        (line,) = error_of(train, capsys, *small[train], "--out", tmp_path)
        assert line == f"train: {tmp_path} must be used by one process at a time, but another one has it"
        assert list(content(tmp_path)) == ["config.json"]


# ---- a disk that is full ---------------------------------------------------------------------------------------------


def test_too_little_space_is_told_before_the_first_epoch(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    out = tmp_path / "runs" / "first"
    (line,) = error_of(train, capsys, *small[train], "--out", out)
    assert line == f"train: {out} must have 0.9 MB free for the checkpoints, but has 0.1"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(small, tmp_path, capsys):
    path = tmp_path / "out"
    path.write_text("mine")
    for out in (path, path / "run"):
        (line,) = error_of(train, capsys, *small[train], "--out", out)
        assert line.startswith("train: ")
        assert str(path) in line
    assert path.read_text() == "mine"


def test_a_full_disk_while_training_keeps_the_earlier_checkpoint(small, tmp_path, capsys, monkeypatch):
    """RLIMIT_FSIZE lets every larger file fail: the first checkpoint fits, those with the optimizer's state do not."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [sys.executable, "apps/train.py", *map(str, small[train]), "--out", str(tmp_path / "run")]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | {"PYTHONWARNINGS": ""},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert len([line for line in process.stdout.splitlines() if line.startswith("epoch")]) == 3
    *warned, last = process.stderr.splitlines()
    assert len(warned) == 6  # last.npz and best.npz after each epoch
    assert all(re.fullmatch(r"train: fit: .*npz was not written, and stays as it was: .*", line) for line in warned)
    assert re.match(r"stopped after 3 of 3 epochs: .*last.npz.*; to go on: python apps/train.py --resume ", last)
    assert sorted(content(tmp_path / "run")) == ["config.json", "last.npz", "metrics.csv"]
    assert ndl.load(tmp_path / "run" / "last.npz")["epoch"] == 0
    assert len(run(train, capsys, "--resume", tmp_path / "run")[0]) == 3


# ---- as programs -----------------------------------------------------------------------------------------------------

PROGRAM = """
import runpy, signal, sys, time
sys.modules["matplotlib"] = None  # a report without pictures takes less time
sys.path.insert(0, "apps")
import training

def wait_for_the_signal(lines, state):
    while state.epoch == 1 and signal.getsignal(signal.SIGINT).__self__.signal is None:
        time.sleep(0.01)

training.Lines.on_step = wait_for_the_signal
runpy.run_path("apps/train.py", run_name="__main__")
"""


def send(process, number, begin_of_line):
    """Send a signal to a program after a line with this beginning; returns the rest of stdout, and stderr."""
    for line in process.stdout:
        if line.startswith(begin_of_line):
            process.send_signal(number)
            break
    return process.communicate(timeout=60)


def test_ctrl_c_stops_a_program_and_its_run_goes_on(tmp_path, capsys):
    arguments = ["--epochs", "3", "--out", tmp_path / "run"]
    with popen(["-c", PROGRAM, *arguments]) as process:
        _, err = send(process, signal.SIGINT, "epoch  1:")
    assert process.returncode == 130, err
    told, stopped = err.strip().splitlines()
    assert told == "SIGINT: stopping after this step; once more stops at once"
    assert stopped.startswith("stopped after 1 of 3 epochs")
    assert (tmp_path / "run" / "report.html").exists()
    rows, lines = run(train, capsys, "--resume", tmp_path / "run")
    assert lines[2].startswith("goes on after 1 of 3 epochs")
    assert len(rows) == 3


def test_a_run_goes_on_from_another_folder(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "here")
    arguments = ["--dataset", "mnist", "--data", "here", "--epochs", "2", "--out", "a run"]
    line = interrupted(train, capsys, monkeypatch, arguments, 1, 1)
    assert line.endswith("--resume 'a run'")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert len(run(train, capsys, "--resume", "../a run")[0]) == 2
