"""The training of ResNet9: its numbers, its lines, its stand-in for the files, and its errors."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import needle as ndl
from apps import train_cifar10
from needle import nn, optim
from needle.data import CIFAR10Dataset, DataLoader
from tests.apps.scripts import error_of, finish, without_speed

EPOCH_LINE = re.compile(
    r"epoch +(\d+): loss (\d+\.\d{4}), train accuracy (\d+\.\d\d)%, test loss (\d+\.\d{4}), "
    r"test accuracy (\d+\.\d\d)%, ([\d,]+) images/s"
)


@pytest.fixture
def few(monkeypatch):
    """Ten images in each file of the stand-in."""
    monkeypatch.setattr(train_cifar10, "PER_FILE", 10)


@pytest.fixture
def folder(tmp_path, few):
    """A folder of CIFAR-10's six files, with ten images each."""
    train_cifar10.write_stand_in(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    """The rows and the lines of a run."""
    rows = train_cifar10.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert output.err == ""
    return rows, output.out.splitlines()


def test_the_stand_in_has_the_form_of_the_files(folder):
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    assert sorted(path.name for path in folder.iterdir()) == names
    contents = [pickle.loads((folder / name).read_bytes()) for name in names]
    for content in contents:
        assert sorted(content) == [b"data", b"labels"]
        assert (content[b"data"].shape, content[b"data"].dtype) == ((10, 3072), np.uint8)
        assert sorted(content[b"labels"]) == list(range(10))
    assert len({content[b"data"].tobytes() for content in contents}) == 6


@pytest.mark.usefixtures("few")
def test_without_a_folder_the_stand_in_is_used_and_the_first_line_says_so(capsys):
    rows, lines = run(capsys, "--epochs", "2", "--batch-size", "16")
    first = (
        "synthetic stand-in for CIFAR-10 (--data FOLDER reads the real one): 50 training and 10 test images of 3x32x32"
    )
    assert lines[:2] == [first, "ResNet9 with 431,946 parameters on cpu()"]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, line in zip(rows, lines[2:], strict=True):
        assert EPOCH_LINE.fullmatch(line).groups() == (
            f"{row['epoch']}",
            f"{row['loss']:.4f}",
            f"{100 * row['train_accuracy']:.2f}",
            f"{row['test_loss']:.4f}",
            f"{100 * row['test_accuracy']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )


def test_a_folder_is_read_and_the_numbers_are_those_of_the_loops(capsys, folder):
    rows, lines = run(capsys, "--data", folder, "--epochs", "1", "--batch-size", "16", "--seed", "3")
    assert lines[0] == "CIFAR-10: 50 training and 10 test images of 3x32x32"
    np.random.seed(3)
    model = train_cifar10.ResNet9()
    optimizer, loss_fn = optim.Adam(model.parameters(), lr=0.001, weight_decay=0.001), nn.SoftmaxLoss()
    losses, hits = [], []
    for images, labels in DataLoader(CIFAR10Dataset(folder, train=True), 16, shuffle=True):
        logits = model(images)
        loss = loss_fn(logits, labels)
        losses += [loss.item()] * len(labels)
        hits += (logits.numpy().argmax(1) == labels.numpy()).tolist()
        optimizer.reset_grad()
        loss.backward()
        optimizer.step()
    (row,) = rows
    assert (row["loss"], row["train_accuracy"]) == pytest.approx((np.mean(losses), np.mean(hits)), rel=1e-6)
    model.eval()
    ((images, labels),) = DataLoader(CIFAR10Dataset(folder, train=False), 10)
    logits = model(images)
    assert row["test_loss"] == pytest.approx(loss_fn(logits, labels).item(), rel=1e-5)
    assert row["test_accuracy"] == np.mean(logits.numpy().argmax(1) == labels.numpy())


def test_the_stand_in_is_learned(capsys):
    rows, _ = run(capsys, "--epochs", "4", "--batch-size", "25")
    assert rows[-1]["train_accuracy"] > 0.9
    assert rows[-1]["test_accuracy"] > 0.7
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.usefixtures("few")
def test_the_same_seed_gives_the_same_numbers_and_every_option_is_used(capsys):
    arguments = ["--epochs", "2", "--batch-size", "25"]
    first = without_speed(run(capsys, *arguments)[0])
    np.random.rand(5)
    assert without_speed(run(capsys, *arguments)[0]) == first
    others = [
        ["--seed", "1"],
        ["--lr", "0.01"],
        ["--optimizer", "adamw", "--weight-decay", "0.5"],
        ["--optimizer", "sgd"],
        ["--weight-decay", "1"],
        ["--clip", "0.01", "--optimizer", "sgd"],
        ["--batch-size", "10"],
        ["--augment"],
    ]
    seen = [first, *(without_speed(run(capsys, *arguments, *other)[0]) for other in others)]
    assert len({str(rows) for rows in seen}) == 1 + len(others)


@pytest.mark.usefixtures("few")
def test_ctrl_c_says_how_many_epochs_are_finished(capsys, monkeypatch):
    def interrupted(*args):
        passes.append(args)
        if len(passes) == 3:  # each epoch has two
            raise KeyboardInterrupt
        return 0.5, 1.0

    passes = []
    monkeypatch.setattr(train_cifar10, "pass_over", interrupted)
    with pytest.raises(SystemExit) as caught:
        train_cifar10.main(["--epochs", "9"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "\nstopped after 1 of 9 epochs\n"


# ---- errors of the user ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, but is 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, but is 0"),
        (["--clip", "0"], "--clip must be more than 0, but is 0.0"),
        (["--clip", "nan"], "--clip must be more than 0, but is nan"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments, message, capsys):
    lines = error_of(train_cifar10, capsys, *arguments)
    assert lines[0].startswith("usage: ")
    assert lines[-1].endswith(f"error: {message}")


@pytest.mark.usefixtures("few")
def test_values_that_cannot_be(capsys):
    (line,) = error_of(train_cifar10, capsys, "--seed", "-1")
    assert line.startswith("train_cifar10: Seed must be between 0 and 2**32 - 1")
    (line,) = error_of(train_cifar10, capsys, "--lr", "-1")
    assert line == "train_cifar10: Adam: lr must lie in [0, inf], but got -1.0"
    (line,) = error_of(train_cifar10, capsys, "--weight-decay", "-1", "--optimizer", "sgd")
    assert line == "train_cifar10: SGD: weight_decay must lie in [0, inf], but got -1.0"


def test_a_folder_without_the_files(capsys, folder):
    (line,) = error_of(train_cifar10, capsys, "--data", folder / "nowhere")
    assert line.startswith("train_cifar10: CIFAR10Dataset: folder must hold one of data_batch_1, ")
    (folder / "test_batch").unlink()
    (line,) = error_of(train_cifar10, capsys, "--data", folder)
    assert line.startswith("train_cifar10: CIFAR10Dataset: folder must hold one of test_batch, ")


@pytest.mark.skipif(ndl.cuda().enabled(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys):
    (line,) = error_of(train_cifar10, capsys, "--device", "cuda")
    assert line.startswith("train_cifar10: cuda: CuPy ")


# ---- as a program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["apps/train_cifar10.py"], ["-m", "apps.train_cifar10"]], ids=" ".join)
def test_it_runs_from_the_root_of_the_repository(command, folder):
    status, out, err = finish([*command, "--data", folder, "--epochs", "1"])
    assert (status, err) == (0, "")
    assert EPOCH_LINE.fullmatch(out.splitlines()[-1])


def test_a_refusal_is_one_line_and_code_2(tmp_path):
    status, out, err = finish(["apps/train_cifar10.py", "--data", tmp_path])
    assert (status, out) == (2, "")
    assert re.fullmatch("train_cifar10: CIFAR10Dataset: .*\n", err)
