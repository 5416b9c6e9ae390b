"""The training script: its numbers against torch, its lines and files, its errors, and Ctrl-C."""

from __future__ import annotations

import csv
import gzip
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import needle as ndl
from apps import train
from needle import nn, optim
from needle.data import DigitsDataset

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other

ROOT = Path(__file__).resolve().parent.parent.parent
EPOCH_LINE = re.compile(
    r"epoch +(\d+): loss (\d+\.\d{4}), train accuracy (\d+\.\d\d)%, test accuracy (\d+\.\d\d)%, ([\d,]+) images/s"
)


def write_idx(path, array):
    """A uint8 array as an IDX file, gzipped where the name says so."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_folder(folder, count=96, side=8, end=""):
    """A folder of four IDX files like MNIST's: `count` digits to train on, half as many to test with."""
    folder.mkdir(exist_ok=True)
    digits = DigitsDataset()
    for part, number in (("train", count), ("t10k", count // 2)):
        images = np.resize(np.round(digits.arrays[0][:, 0] * 255).astype(np.uint8), (number, 8, 8))
        images = np.pad(images, ((0, 0), (0, side - 8), (0, side - 8))) if side > 8 else images[:, :side, :side]
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", np.resize(digits.arrays[1], number))
    return folder


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory):
    """Arguments of the script for a small folder."""
    folder = write_folder(tmp_path_factory.mktemp("few"), count=192)
    return ["--dataset", "mnist", "--data", str(folder), "--batch-size", "32", "--epochs", "2"]


def without_speed(rows):
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


# ---- the numbers -----------------------------------------------------------------------------------------------------


def torch_twin(model, side):
    """TinyCNN in torch, with the parameters of needle's."""

    def block(channels, out_channels):
        conv = torch.nn.Conv2d(channels, out_channels, 3, padding=1)
        return conv, torch.nn.BatchNorm2d(out_channels), torch.nn.ReLU()

    twin = torch.nn.Sequential(
        *block(1, 16),
        *block(16, 32),
        torch.nn.MaxPool2d(2),
        *block(32, 64),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * (side // 4) ** 2, 10),
    ).double()
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            other.copy_(torch.from_numpy(np.ascontiguousarray(in_torch_layout(parameter))))
    return twin


def in_torch_layout(parameter):
    """The values of a parameter as torch has them: of Linear the weight (out, in) and the bias (out,)."""
    array = parameter.numpy()
    return array.T.reshape(-1) if array.shape[0] == 1 else array.T if array.ndim == 2 else array


def test_fifty_steps_follow_torch():
    np.random.seed(0)
    model = train.TinyCNN(8, dtype="float64")
    twin = torch_twin(model, 8)
    options = train.parse([])
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    torch_optimizer = torch.optim.Adam(twin.parameters(), lr=options.lr)
    images, labels = (array for array in DigitsDataset().arrays)
    losses = []
    for _ in range(50):
        batch = np.random.permutation(len(images))[: options.batch_size]
        x, target = images[batch].astype(np.float64), labels[batch]
        tensors = [ndl.Tensor(array, requires_grad=False) for array in (x, target)]
        loss, accuracy = train.train_epoch(model, [tensors], nn.CrossEntropyLoss(), optimizer)
        logits = twin(torch.from_numpy(x))
        torch_loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(target).long())
        torch_optimizer.zero_grad()
        torch_loss.backward()
        torch_optimizer.step()
        np.testing.assert_allclose(loss, torch_loss.item(), rtol=1e-8)
        assert accuracy == (logits.argmax(1).numpy() == target).mean()
        losses.append(loss)
    assert losses[-1] < losses[0] / 4
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(in_torch_layout(parameter), other.detach().numpy(), atol=1e-7, err_msg=name)


def test_the_loss_of_an_epoch_is_the_mean_over_images():
    class Last(nn.Module):
        def forward(self, x, target):
            return x[-1, 0] * 1

    model = nn.Sequential(nn.Linear(2, 2))
    model.load_state_dict({"0.weight": np.eye(2), "0.bias": np.zeros((1, 2))})
    loader = [
        (ndl.Tensor([[9.0, 0], [0, 9], [4, 0]], dtype="float32"), ndl.Tensor([0, 1, 1])),
        (ndl.Tensor([[8.0, 0]], dtype="float32"), ndl.Tensor([0])),
    ]
    loss, accuracy = train.train_epoch(model, loader, Last(), optim.SGD(model.parameters(), lr=0))
    assert loss == (3 * 4 + 1 * 8) / 4
    assert accuracy == 3 / 4
    assert train.evaluate(model, loader) == 3 / 4


def test_modes_and_graphs_while_training_and_testing():
    seen = []

    class Probe(nn.Linear):
        def forward(self, x):
            seen.append((self.training, ndl.is_grad_enabled()))
            return super().forward(x)

    model = Probe(2, 3)
    batch = (ndl.zeros(4, 2), ndl.Tensor([0, 1, 2, 0]))
    train.evaluate(model, [batch])
    train.train_epoch(model, [batch, batch], nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
    assert seen == [(False, False), (True, True), (True, True)]


def test_the_digits_are_learned_with_the_default_arguments(capsys):
    rows = train.main([])
    assert len(rows) == 15
    assert rows[-1]["test_accuracy"] >= 0.98
    assert rows[-1]["train_accuracy"] >= 0.99
    assert rows[-1]["loss"] < 0.05 < rows[0]["loss"]
    assert "digits: 1442 training and 355 test images of 8x8\n" in capsys.readouterr().out


def run_with_parameters(monkeypatch, *arguments):
    """What `main` returns without the speed, and the parameters of the model that it made."""
    made = []

    class Recorded(train.TinyCNN):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(train, "TinyCNN", Recorded)
        rows = train.main(list(arguments))
    (model,) = made
    return without_speed(rows), {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(monkeypatch, few_digits):
    first = run_with_parameters(monkeypatch, *few_digits, "--seed", "3")
    np.random.rand(5)
    assert run_with_parameters(monkeypatch, *few_digits, "--seed", "3") == first
    rows, parameters = run_with_parameters(monkeypatch, *few_digits, "--seed", "4")
    assert rows != first[0]
    assert all(parameters[name] != first[1][name] for name in ("features.0.weight", "classify.weight"))


# ---- lines and files -------------------------------------------------------------------------------------------------


def test_each_epoch_prints_a_line_and_gives_a_row_which_metrics_csv_holds_too(tmp_path, capsys):
    folder = tmp_path / "runs" / "first"
    rows = train.main(["--epochs", "2", "--out", str(folder)])
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert output.err == ""
    assert lines[:2] == [
        "digits: 1442 training and 355 test images of 8x8",
        "TinyCNN with 26,090 parameters on cpu()",
    ]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, line in zip(rows, lines[2:], strict=True):
        assert tuple(row) == train.COLUMNS
        shown = EPOCH_LINE.fullmatch(line).groups()
        assert shown == (
            f"{row['epoch']}",
            f"{row['loss']:.4f}",
            f"{100 * row['train_accuracy']:.2f}",
            f"{100 * row['test_accuracy']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )
    assert read_metrics(folder) == rows
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]


def read_metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = [{name: float(value) for name, value in row.items()} for row in reader]
    assert tuple(reader.fieldnames) == train.COLUMNS
    return rows


def test_a_second_run_begins_metrics_csv_anew(tmp_path, few_digits):
    for epochs in ("2", "1"):
        rows = train.main([*few_digits, "--epochs", epochs, "--out", str(tmp_path)])
        assert read_metrics(tmp_path) == rows
        assert len(rows) == int(epochs)


def test_without_out_nothing_is_written(tmp_path, monkeypatch, few_digits):
    monkeypatch.chdir(tmp_path)
    train.main(few_digits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "side", "end"), [("mnist", 28, ".gz"), ("fashion-mnist", 8, ""), ("mnist", 13, "")], ids=str
)
def test_a_folder_of_idx_files(name, side, end, tmp_path, capsys):
    folder = write_folder(tmp_path / "data", side=side, end=end)
    rows = train.main(["--dataset", name, "--data", str(folder), "--epochs", "3", "--batch-size", "16"])
    assert len(rows) == 3
    assert rows[2]["loss"] < rows[0]["loss"]
    assert capsys.readouterr().out.startswith(f"{name}: 96 training and 48 test images of {side}x{side}\n")


def test_the_options_of_the_command_line():
    assert train.parse([]).epochs == 15
    assert train.parse(["--dataset", "mnist", "--data", "folder"]).epochs == 5
    options = train.parse(["--epochs", "3", "--batch-size", "8", "--lr", "0.1", "--seed", "7", "--out", "runs"])
    assert (options.epochs, options.batch_size, options.lr, options.seed) == (3, 8, 0.1, 7)
    assert options.out == Path("runs")


def test_batch_size_and_learning_rate_are_used(monkeypatch, few_digits):
    first, _ = run_with_parameters(monkeypatch, *few_digits)
    other_batch, _ = run_with_parameters(monkeypatch, *few_digits, "--batch-size", "64")
    other_rate, _ = run_with_parameters(monkeypatch, *few_digits, "--lr", "0.001")
    assert first[0]["loss"] != other_batch[0]["loss"] != other_rate[0]["loss"] != first[0]["loss"]


def test_training_images_are_shuffled_for_each_epoch_and_test_images_are_not(monkeypatch, few_digits):
    trained, tested = [], []

    def labels(loader):
        return np.concatenate([batch.numpy() for _, batch in loader]).tolist()

    def record_training(model, loader, *rest):
        trained.append(labels(loader))
        return 0.0, 0.0

    def record_test(model, loader):
        tested.append(labels(loader))
        return 0.0

    monkeypatch.setattr(train, "train_epoch", record_training)
    monkeypatch.setattr(train, "evaluate", record_test)
    train.main(few_digits)
    given = DigitsDataset().arrays[1]
    assert tested == [given[:96].tolist()] * 2
    assert trained[0] != trained[1]
    assert given[:192].tolist() not in trained
    assert sorted(trained[0]) == sorted(trained[1]) == sorted(given[:192].tolist())


# ---- errors of the user ----------------------------------------------------------------------------------------------


def error_of(capsys, *arguments):
    """What the script writes when it refuses `arguments`, as lines."""
    with pytest.raises(SystemExit) as caught:
        train.main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs and --batch-size must be at least 1"),
        (["--batch-size", "0"], "--epochs and --batch-size must be at least 1"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--dataset", "mnist"], "--dataset mnist needs --data, the folder of its four IDX files"),
        (["--dataset", "fashion-mnist"], "--dataset fashion-mnist needs --data, the folder of its four IDX files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments, message, capsys):
    lines = error_of(capsys, *arguments)
    assert lines[0].startswith("usage: ")
    assert lines[-1].endswith(f"error: {message}")


def test_a_folder_that_is_not_there(tmp_path, capsys):
    folder, out = tmp_path / "nowhere", tmp_path / "out"
    (line,) = error_of(capsys, "--dataset", "mnist", "--data", folder, "--out", out)
    assert line.startswith("train: idx_files: folder must hold one of train-images-idx3-ubyte, ")
    assert f"but there is no such folder as {folder}; MNIST is at https://" in line
    assert not out.exists()


def test_a_file_that_is_cut_off(tmp_path, capsys):
    folder = write_folder(tmp_path / "data")
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    (line,) = error_of(capsys, "--dataset", "mnist", "--data", folder)
    assert line == (
        f"train: read_idx: data of shape (48, 8, 8) and type uint8 must have 3072 bytes, but {path} has 3071"
    )


def test_images_that_are_too_small(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", side=3)
    (line,) = error_of(capsys, "--dataset", "mnist", "--data", folder)
    assert line == "train: Linear: in_features must be at least 1, but got 0"


def test_a_seed_and_a_learning_rate_that_cannot_be(capsys):
    (line,) = error_of(capsys, "--seed", "-1")
    assert line.startswith("train: Seed must be between 0 and 2**32 - 1")
    (line,) = error_of(capsys, "--lr", "-1")
    assert line == "train: Adam: lr must lie in [0, inf], but got -1.0"


def test_a_folder_for_metrics_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "out"
    path.write_text("mine")
    (line,) = error_of(capsys, "--out", path)
    assert line.startswith("train: ")
    assert str(path) in line
    assert path.read_text() == "mine"


def test_a_gpu_that_is_not_there_is_one_line_even_where_the_reason_is_many(monkeypatch, capsys):
    class NoGPU(ndl.BackendDevice):
        def zeros(self, *shape, dtype="float32"):
            raise RuntimeError("cuda: CuPy cannot be imported;\n\n  install it")

    monkeypatch.setattr(ndl, "cuda", lambda: NoGPU("cuda", np))
    assert error_of(capsys, "--device", "cuda") == ["train: cuda: CuPy cannot be imported; install it"]


@pytest.mark.skipif(ndl.cuda().enabled(), reason="there is a GPU")
def test_a_real_gpu_that_is_not_there(capsys):
    (line,) = error_of(capsys, "--device", "cuda")
    assert line.startswith("train: cuda: CuPy ")


def test_an_error_in_the_training_itself_keeps_its_traceback(monkeypatch):
    def broken(*args):
        raise ValueError("a mistake in the program")

    monkeypatch.setattr(train, "train_epoch", broken)
    with pytest.raises(ValueError, match="a mistake in the program"):
        train.main([])


# ---- as a program ----------------------------------------------------------------------------------------------------


def start(command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, text=True, **pipes, **options)


@pytest.mark.parametrize("command", [["apps/train.py"], ["-m", "apps.train"]], ids=" ".join)
def test_it_runs_from_the_root_of_the_repository(command):
    with start([*command, "--epochs", "1"]) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert EPOCH_LINE.fullmatch(out.splitlines()[-1])


@pytest.mark.parametrize("command", [["apps/train.py"], ["-m", "apps.train"]], ids=" ".join)
def test_a_refusal_is_one_line_and_code_2(command, tmp_path):
    with start([*command, "--dataset", "mnist", "--data", str(tmp_path)]) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch("train: idx_files: .*\n", err)


# Whoever starts the tests may ignore SIGINT, as shells do for what runs in the background; a program inherits that.
INTERRUPTIBLE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("apps.train", run_name="__main__", alter_sys=True)
"""


def interrupt(arguments, begin_of_line, seconds):
    """Send SIGINT so many seconds after such a line; returns the lines of stdout, and stderr."""
    with start(["-c", INTERRUPTIBLE, *arguments]) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(begin_of_line):
                time.sleep(seconds)
                process.send_signal(signal.SIGINT)
                break
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 130, err
    return lines + out.splitlines(keepends=True), err


@pytest.mark.parametrize("seconds", [0, 0.03, 0.2])
def test_ctrl_c_after_an_epoch_keeps_what_was_finished(seconds, tmp_path, few_digits):
    arguments = [*few_digits, "--epochs", "9999", "--out", str(tmp_path)]
    lines, err = interrupt(arguments, "epoch  1:", seconds)
    printed = [int(EPOCH_LINE.fullmatch(line.strip()).group(1)) for line in lines[2:]]
    written = [row["epoch"] for row in read_metrics(tmp_path)]
    stopped = int(re.fullmatch(r"\nstopped after (\d+) of 9999 epochs\n", err).group(1))
    assert printed == list(range(1, len(printed) + 1))
    assert written == list(range(1, len(written) + 1))
    assert len(printed) <= stopped <= len(written) <= len(printed) + 1  # the signal may come between file and line


def test_ctrl_c_within_the_first_epoch(tmp_path):
    folder, out = write_folder(tmp_path / "data", count=30000, side=28), tmp_path / "out"
    arguments = ["--dataset", "mnist", "--data", str(folder), "--out", str(out)]
    lines, err = interrupt(arguments, "TinyCNN", 0.3)
    assert len(lines) == 2
    assert read_metrics(out) == []
    assert err == "\nstopped after 0 of 5 epochs\n"
