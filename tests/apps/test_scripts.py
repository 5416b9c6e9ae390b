"""Features that the three training scripts share: options, errors, metrics.csv, runs as programs."""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
import synthetic
import train
import train_cifar10
import train_ptb
import training
from needle.training import TrainingState
from tests.apps.scripts import (
    ENVIRONMENT,
    ROOT,
    error_of,
    finish,
    read_metrics,
    run,
    without_speed,
    write_digits,
    write_texts,
)

SCRIPTS = [train, train_cifar10, train_ptb]


def name_of(value):
    return getattr(value, "__name__", None) or (" ".join(value) if isinstance(value, list) else "")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """For each script the arguments of a short run."""
    folder = tmp_path_factory.mktemp("small")
    images = folder / "images"
    images.mkdir()
    synthetic.write_cifar10(images, per_file=10)
    return {
        train: ["--dataset", "mnist", "--data", write_digits(folder / "digits"), "--epochs", "2", "--batch-size", "32"],
        train_cifar10: ["--data", images, "--epochs", "2", "--batch-size", "25"],
        train_ptb: ["--data", write_texts(folder / "text"), "--epochs", "2", "--batch-size", "4",
                    "--hidden-size", "16", "--embedding-size", "8", "--seq-len", "4"],
    }  # fmt: skip


# ---- options ---------------------------------------------------------------------------------------------------------

LEARNING = [  # in code that the scripts share
    ["--lr", "0.01"],
    ["--optimizer", "adamw", "--weight-decay", "0.5"],
    ["--optimizer", "sgd"],
    ["--optimizer", "sgd", "--momentum", "0.9"],
    ["--weight-decay", "1"],
    ["--clip", "0.01", "--optimizer", "sgd"],
    ["--label-smoothing", "0.2"],
    ["--accumulate", "2"],
    ["--validation", "0.3"],
    ["--schedule", "cosine"],
    ["--schedule", "step", "--drop-after", "1"],
    ["--schedule", "onecycle"],
    ["--warmup", "1.5"],
    ["--warmup", "1.5", "--schedule", "cosine"],
]
OPTIONS = {
    train: [*LEARNING[:2], ["--validation", "0.3"], ["--augment"],
            *(["--model", name] for name in ("conv1d", "resnet9", "autoencoder", "unet"))],
    train_cifar10: [*LEARNING[:2], ["--validation", "0.3"], ["--augment"]],
    train_ptb: [
        *LEARNING,
        ["--model", "rnn"],
        ["--model", "transformer"],
        ["--embedding-size", "9"],
        ["--hidden-size", "9"],
        ["--layers", "2"],
        ["--seq-len", "7"],
        ["--max-lines", "12"],
    ],
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_the_same_seed_gives_the_same_numbers_and_every_option_is_used(script, small, capsys):
    first = without_speed(run(script, capsys, *small[script])[0])
    np.random.rand(5)
    assert without_speed(run(script, capsys, *small[script])[0]) == first
    others = [["--seed", "1"], ["--batch-size", "10"], *OPTIONS[script]]
    seen = [first, *(without_speed(run(script, capsys, *small[script], *other)[0]) for other in others)]
    assert len({str(rows) for rows in seen}) == 1 + len(others)


CONFLICTS = [
    (["--momentum", "0.9"], "--momentum is for sgd, but --optimizer is adam"),
    (["--warmup", "1", "--schedule", "onecycle"],
     "--warmup is for constant, cosine and step, but --schedule is onecycle"),
    (["--drop-after", "3"], "--drop-after is for step and plateau, but --schedule is constant"),
    (["--save-every", "3"], "--save-every is for runs with --out RUN, but there is none"),
    (["--out", "a", "--resume", "b"], "argument --resume: not allowed with argument --out"),
]  # fmt: skip
SIZES = ["--embedding-size", "--hidden-size", "--layers", "--seq-len", "--max-lines"]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        *((script, [name, "0"], f"{name} must be at least 1, but got 0")
          for script in SCRIPTS for name in ("--epochs", "--batch-size")),
        *((train_ptb, [name, "0"], f"{name} must be at least 1, but got 0") for name in SIZES),
        *((script, ["--epochs", "many"], "argument --epochs: invalid int value: 'many'") for script in SCRIPTS),
        *((script, ["--seed", value], f"--seed must lie in [0, 4294967295], but got {value}")
          for script in SCRIPTS for value in ("-1", "4294967296")),
        *((script, ["--lr", value], f"--lr must be finite and greater than 0, but got {float(value)}")
          for script in SCRIPTS for value in ("inf", "nan", "-1", "0", "1e999")),
        *((script, ["--clip", value], f"--clip must be finite and greater than 0, but got {float(value)}")
          for script in SCRIPTS for value in ("inf", "nan", "-1", "0")),
        *((script, ["--weight-decay", value], f"--weight-decay must be finite and at least 0, but got {float(value)}")
          for script in SCRIPTS for value in ("inf", "nan", "-1")),
        *((script, [f"--{name}", value], f"--{name} must be at least 0 and less than 1, but got {float(value)}")
          for script in SCRIPTS for name in ("validation", "label-smoothing", "momentum") for value in ("1", "-0.1")),
        *((script, arguments, message) for script in SCRIPTS for arguments, message in CONFLICTS),
        *((train, ["--dataset", name], f"--dataset {name} needs --data, the folder of its files")
          for name in ("mnist", "fashion-mnist", "cifar10")),
        (train, ["--data", "digits"], "--data is for mnist, fashion-mnist, cifar10, but --dataset is digits"),
        (train, ["--dataset", "letters"],
         "--dataset must be digits, mnist, fashion-mnist, cifar10 or a folder, but got letters"),
        (train, ["--dataset", ""], "--dataset must be digits, mnist, fashion-mnist, cifar10 or a folder, but got "),
        *((train, [option, ""], f"argument {option}: a path must not be empty")
          for option in ("--out", "--resume", "--data")),
        (train, ["--size", "8"], "--size is for folders of images, but --dataset is digits"),
        (train, ["--model", "autoencoder", "--label-smoothing", "0.1"],
         "--label-smoothing is for classes, but --model autoencoder has none"),
    ],
    ids=name_of,
)  # fmt: skip
def test_wrong_usage(script, arguments, message, capsys):
    (line,) = error_of(script, capsys, *arguments)
    assert line.endswith(f"error: {message}")


def options_of(script):
    """The actions of a script's parser."""
    actions = []
    parse = argparse.ArgumentParser.parse_args

    def record(parser, *arguments):
        actions.extend(parser._actions)
        return parse(parser, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", record)
        script.parse([])
    return actions


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_no_number_may_be_negative_or_infinite(script, small, capsys):
    """Every option that is a number, also one that a later version adds."""
    numbers = [action.option_strings[0] for action in options_of(script) if action.type in (int, float)]
    assert {"--lr", "--epochs", "--batch-size", "--seed"} <= set(numbers)
    for name in numbers:
        for value in ("-1", "inf", "nan"):
            lines = error_of(script, capsys, *small[script], f"{name}={value}")
            assert name in lines[-1]


def test_no_batch_may_have_a_single_image_where_batch_norm_needs_two(small, capsys):
    for size, total in ((1, 50), (7, 50), (49, 50)):
        (line,) = error_of(train_cifar10, capsys, *small[train_cifar10], "--batch-size", size)
        message = f"needs at least 2 images in every batch, but --batch-size {size} of {total} leaves a batch of 1"
        assert line == f"train_cifar10: batch normalization {message}"


def test_a_model_that_does_not_fit_into_memory_is_one_line(small, capsys):
    (line,) = error_of(train_ptb, capsys, *small[train_ptb], "--embedding-size", 10**13)
    assert line.startswith("train_ptb: Unable to allocate ")


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_missing_folder(script, small, tmp_path, capsys):
    kind = {train: "idx_files", train_cifar10: "CIFAR10Dataset", train_ptb: "Corpus"}[script]
    arguments = ["--data", tmp_path / "nowhere", "--out", tmp_path / "out"]
    (line,) = error_of(script, capsys, *small[script], *arguments)
    assert line.startswith(f"{script.__name__}: {kind}: folder must hold one of ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_missing_gpu_is_one_line_even_if_the_reason_has_several(script, monkeypatch, capsys):
    class NoGPU(ndl.BackendDevice):
        def zeros(self, *shape, dtype="float32"):
            raise RuntimeError("cuda: CuPy cannot be imported;\n\n  install it")

    monkeypatch.setattr(ndl, "cuda", lambda: NoGPU("cuda", np))
    (line,) = error_of(script, capsys, "--device", "cuda")
    assert line == f"{script.__name__}: cuda: CuPy cannot be imported; install it"


@pytest.mark.skipif(ndl.cuda().enabled(), reason="there is a GPU")
def test_a_missing_gpu_of_this_machine(capsys):
    (line,) = error_of(train, capsys, "--device", "cuda")
    assert line.split() == f"train: cuda: {ndl.cuda().problem()}".split()  # CuPy or the driver may be missing


# ---- metrics.csv -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_metrics_csv_holds_the_rows(script, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "report", lambda *arguments: None)  # it takes longer than the run
    folder = tmp_path / "runs" / "first"
    rows, _ = run(script, capsys, *small[script], "--out", folder)
    columns, written = read_metrics(folder)
    assert written == rows
    assert columns == tuple(rows[0])
    assert [row["epoch"] for row in rows] == [1, 2]


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_the_columns_say_which_set_was_held_out(script, small, capsys):
    for arguments, split in (([], "test"), (["--validation", "0.2"], "val")):
        (row, _), lines = run(script, capsys, *small[script], *arguments)
        assert {f"{split}_loss", f"{split}_accuracy", "train_accuracy", "loss", "lr", "seconds"} < {*row}
        assert not any(name.startswith({"test": "val", "val": "test"}[split]) for name in row)
        assert f", {'validation' if split == 'val' else 'test'} accuracy {row[f'{split}_accuracy']:.2%}" in lines[2]
    assert re.match(r"after epoch 2: test loss \d", lines[-1])  # once, at the end


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_without_out_nothing_is_written(script, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(script, capsys, *small[script], "--epochs", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
@pytest.mark.parametrize("arguments", [["--patience", "2"], ["--schedule", "plateau"]], ids=name_of)
def test_the_test_set_is_not_for_choosing(script, arguments, small, capsys):
    (line,) = error_of(script, capsys, *small[script], *arguments)
    name = "--patience" if "--patience" in arguments else "plateau"
    message = "needs --validation FRACTION, since the test set is not for choosing"
    assert line == f"{script.__name__}: {name} {message}"


# ---- errors while training -------------------------------------------------------------------------------------------

UNSAVED = "nothing was saved, since there was no --out RUN"


def failing(monkeypatch, error):
    """Let the training itself raise an error."""

    def fit(*args, callbacks, **options):
        callbacks[0].on_start(TrainingState())
        raise error

    monkeypatch.setattr(training, "fit", fit)


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_an_error_in_the_training_itself_keeps_its_traceback(script, small, monkeypatch):
    failing(monkeypatch, ValueError("a mistake in the program"))
    with pytest.raises(ValueError, match="a mistake in the program"):
        script.main([str(argument) for argument in small[script]])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (BrokenPipeError(32, "Broken pipe"), "[Errno 32] Broken pipe"),
    ],
)
@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_what_the_machine_lacks_while_training_is_one_line(script, error, reason, small, capsys, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(SystemExit) as caught:
        script.main([*map(str, small[script]), "--epochs", "9"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"stopped after 0 of 9 epochs: {reason}; {UNSAVED}\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_loss_that_is_not_finite_ends_with_what_to_do(script, small, tmp_path, capsys):
    arguments = ["--optimizer", "sgd", "--lr", "1e38", "--epochs", "9"]
    for kept in ([], ["--out", tmp_path / "run"]):
        with pytest.raises(SystemExit) as caught:
            script.main([*map(str, small[script]), *arguments, *map(str, kept)])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.match(
            r"stopped after \d of 9 epochs.*: .* must be finite, but got .*; here, use a smaller --lr or --clip 1", line
        )
        advice = f"; to go on: python apps/{script.__name__}.py --resume {tmp_path / 'run'} --clip 1"
        assert line.endswith(advice) == bool(kept)
    state = ndl.load(tmp_path / "run" / "last.npz")
    assert all(np.isfinite(array).all() for array in state["model"].values())
    if script is train:  # the weight decay of ResNet9 times this rate is too much for any limit
        rows, _ = run(script, capsys, "--resume", tmp_path / "run", "--clip", "1e-38")
        assert len(rows) == 9


# ---- the bar ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_terminal_shows_a_bar_that_is_gone_when_the_line_of_an_epoch_comes(script, small, monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    script.main([str(argument) for argument in small[script]])
    text = terminal.getvalue()
    assert re.search(r"epoch 1/2:.*loss \d", text)
    for number in (1, 2):
        before = text[: text.index(f"epoch  {number}: loss")]
        assert before.rpartition("\r")[2].strip() == ""


def test_without_tqdm_a_terminal_shows_no_bar(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train.main([str(argument) for argument in small[train]])
    assert terminal.getvalue() == ""


# ---- as programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_it_runs_from_the_root_of_the_repository(script, small):
    status, out, err = finish([f"apps/{script.__name__}.py", *small[script], "--epochs", "1"])
    assert (status, err) == (0, "")
    assert re.fullmatch(r"epoch  1: loss \d.*, [\d,]+ (images|words)/s", out.splitlines()[-1])


def test_a_refusal_is_one_line_and_status_2(tmp_path):
    status, out, err = finish(["apps/train.py", "--dataset", "mnist", "--data", tmp_path])
    assert (status, out) == (2, "")
    assert re.fullmatch("train: idx_files: .*\n", err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_is_one_line_and_status_2(small):
    command = [sys.executable, "apps/train_ptb.py", *map(str, small[train_ptb])]
    with open("/dev/full", "w") as full:
        process = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, check=False)
    message = f"stopped after 0 of 2 epochs: [Errno 28] No space left on device; {UNSAVED}\n"
    assert (process.returncode, process.stderr.decode()) == (2, message)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_the_start_is_no_second_error(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, closed, None)
    with pytest.raises(SystemExit) as caught:
        train.main(["--dataset", "mnist", "--data", str(tmp_path)])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["-m", "apps.train", "--dataset", "mnist", "--data", "nowhere"], "train: idx_files: folder must hold one of"),
        (["apps/benchmark"], "benchmark: it must run as a module, by python -m apps.benchmark"),
        (["apps/benchmark/conv_algorithms.py"], "benchmark: it must run as a module, by python -m apps.benchmark.conv"),
        (["-S", "apps/train.py"], "needle must be installed, by pip install -e ., but"),  # -S: without site-packages
    ],
)
def test_started_in_another_way_it_runs_or_says_how(command, message, monkeypatch):
    if "-S" in command:
        monkeypatch.delitem(ENVIRONMENT, "PYTHONPATH")
    status, out, err = finish(command)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)
