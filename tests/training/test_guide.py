"""docs/training.md: its programs run, on small files of random images, and do what the text says."""

from __future__ import annotations

import math
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from apps.synthetic import write_cifar10
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset
from needle.metrics import Accuracy, ConfusionMatrix
from needle.optim import lr_scheduler

TEXT = (Path(__file__).resolve().parents[2] / "docs/training.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PROGRAM, EVALUATION, LOOP, SCHEDULE, REPORT, CTRL_C = BLOCKS


def run(code, **names):
    exec(compile(code, "training.md", "exec"), names)
    return names


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """What the short programs expect, on ten items."""
    monkeypatch.chdir(tmp_path)
    dataset = NDArrayDataset(np.random.randn(10, 4).astype("float32"), np.arange(10))
    model, epochs, accumulate = nn.Linear(4, 10), 4, 2
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "model": model, "optimizer": optimizer, "loss_fn": nn.CrossEntropyLoss(), "epochs": epochs,
        "loader": DataLoader(dataset, 3, shuffle=True), "validation": DataLoader(dataset, 5),
        "schedule": lr_scheduler.StepLR(optimizer, 2), "accumulate": accumulate, "metrics": {"accuracy": Accuracy()},
        "training": training, "lr_scheduler": lr_scheduler, "math": math, "os": os, "ConfusionMatrix": ConfusionMatrix,
    }  # fmt: skip


def test_the_program_has_at_most_40_lines():
    assert PROGRAM.count("\n") <= 40


def test_the_program_trains_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write_cifar10(Path("data"), 20)
    short = PROGRAM.replace("Accuracy()}, 20\n", "Accuracy()}, 2\n").replace("128 * 4", "12 * 4")
    short = short.replace("block(3, 32), block(32, 64), block(64, 128)", "block(3, 4), block(4, 8), block(8, 12)")
    assert short.count("12 * 4") == short.count("block(8, 12)") == 1
    first = run(short)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"test loss \d\.\d{4}, accuracy \d+\.\d\d%\n\w+: \d+%, the label is \w+\n", printed)
    last = ndl.load("runs/cifar10/last.npz")
    assert (last["epoch"], len(last["history"])) == (2, 2)
    assert run(short)["figures"] == first["figures"]  # the run is complete: nothing is trained
    assert capsys.readouterr().out == printed


def test_the_evaluation(parts):
    assert np.asarray(run(EVALUATION, **parts)["figures"]["confusion"]).sum() == 10


def test_the_loop_of_ones_own_goes_on(parts):
    whole = run(LOOP, **parts)
    expected = {name: tensor.numpy().tobytes() for name, tensor in whole["model"].state_dict().items()}
    assert (whole["state"].epoch, whole["optimizer"].lr) == (4, pytest.approx(0.001))
    assert run(LOOP, **parts)["state"].epoch == 4
    assert {name: tensor.numpy().tobytes() for name, tensor in parts["model"].state_dict().items()} == expected


def test_the_schedule_ends_with_training(parts):
    parts["epochs"] = 60  # of 2 steps each
    run(SCHEDULE, **parts)
    assert parts["optimizer"].lr == pytest.approx(0, abs=1e-12)


def test_a_callback_prints_figures(parts, capsys):
    run(REPORT, **parts)
    first, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1, loss [\d.]+, lr 0.1, seconds [\d.e-]+, items_per_second .*, val_loss [\d.]+", first)
    assert len(rest) == 3


def test_ctrl_c(parts, capsys):
    class Interrupt(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            signal.raise_signal(signal.SIGINT)
            return super().forward(outputs, targets)

    run(CTRL_C, **parts | {"loss_fn": Interrupt()})
    assert capsys.readouterr().out == "stopped by SIGINT; the same command goes on\n"
    assert ndl.load("runs/a/last.npz")["batch"] == 1
