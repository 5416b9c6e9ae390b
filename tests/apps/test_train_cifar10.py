"""Training ResNet9: its numbers, its lines, its synthetic data. test_scripts.py tests what all scripts share."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import synthetic
import train_cifar10
from models import ResNet9
from needle import nn, optim
from needle.data import CIFAR10Dataset, DataLoader
from tests.apps.scripts import error_of, run

EPOCH_LINE = re.compile(
    r"epoch +(\d+): loss (\d+\.\d{4}), train accuracy (\d+\.\d\d)%, test accuracy (\d+\.\d\d)%, ([\d,]+) images/s"
)


@pytest.fixture
def folder(tmp_path):
    """A folder of CIFAR-10's six files, with ten images each."""
    synthetic.write_cifar10(tmp_path, per_file=10)
    return tmp_path


def test_the_synthetic_files_have_the_format_of_the_real_ones(folder):
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    assert sorted(path.name for path in folder.iterdir()) == names
    contents = [pickle.loads((folder / name).read_bytes()) for name in names]
    for content in contents:
        assert sorted(content) == [b"data", b"labels"]
        assert (content[b"data"].shape, content[b"data"].dtype) == ((10, 3072), np.uint8)
        assert sorted(content[b"labels"]) == list(range(10))
    assert len({content[b"data"].tobytes() for content in contents}) == 6


def test_without_a_folder_synthetic_data_are_learned_and_the_first_line_says_so(capsys):
    rows, lines = run(train_cifar10, capsys, "--epochs", "4", "--batch-size", "25")
    first = (
        "synthetic stand-in for CIFAR-10 (--data FOLDER reads the real one): "
        "500 training and 100 test images of 3x32x32"
    )
    assert lines[:2] == [first, "ResNet9 with 431,946 parameters on cpu()"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for row, line in zip(rows, lines[2:], strict=True):
        assert EPOCH_LINE.fullmatch(line).groups() == (
            f"{row['epoch']}",
            f"{row['loss']:.4f}",
            f"{100 * row['train_accuracy']:.2f}",
            f"{100 * row['test_accuracy']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )
    assert rows[-1]["train_accuracy"] > 0.9
    assert rows[-1]["test_accuracy"] > 0.7
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_folder_is_read_and_the_numbers_match_plain_loops(capsys, folder):
    rows, lines = run(train_cifar10, capsys, "--data", folder, "--epochs", "1", "--batch-size", "16", "--seed", "3")
    whole = "a part of CIFAR-10 (it has 50000 and 10000 images)"
    assert lines[0] == f"{whole}: 50 training and 10 test images of 3x32x32"
    np.random.seed(3)
    model = ResNet9()
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


def test_a_folder_without_the_files(capsys, folder):
    (line,) = error_of(train_cifar10, capsys, "--data", folder / "nowhere")
    assert line.startswith("train_cifar10: CIFAR10Dataset: folder must hold one of data_batch_1, ")
    (folder / "test_batch").unlink()
    (line,) = error_of(train_cifar10, capsys, "--data", folder)
    assert line.startswith("train_cifar10: CIFAR10Dataset: folder must hold one of test_batch, ")
