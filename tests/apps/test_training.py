"""The training loop: loss and accuracy of a pass, modes, epochs, rows, the progress bar."""

from __future__ import annotations

import builtins
import csv
import io
import sys

import numpy as np
import pytest

import needle as ndl
import training
from needle import nn, optim
from needle.data import DataLoader, NDArrayDataset, batchify
from training import Images, Metrics, Text, fit, pass_over


class Last(nn.Module):
    """A loss that shows which batch it saw: the first logit of the last row."""

    def forward(self, x, target):
        return x[-1, 0] * 1


def identity():
    model = nn.Sequential(nn.Linear(2, 2))
    model.load_state_dict({"0.weight": np.eye(2), "0.bias": np.zeros((1, 2))})
    return model


BATCHES = [
    (ndl.Tensor([[9.0, 0], [0, 9], [4, 0]], dtype="float32"), ndl.Tensor([0, 1, 1])),
    (ndl.Tensor([[8.0, 0]], dtype="float32"), ndl.Tensor([0])),
]


def test_accuracy_and_loss_are_means_over_the_targets():
    model = identity()
    opt = optim.SGD(model.parameters(), lr=0)
    for optimizer in (opt, None):
        assert pass_over(model, Images(BATCHES).outputs(model), Last(), optimizer) == (3 / 4, (3 * 4 + 1 * 8) / 4)


def test_modes_and_graphs_while_training_and_testing():
    seen = []

    class Probe(nn.Linear):
        def forward(self, x):
            seen.append((self.training, ndl.is_grad_enabled()))
            return super().forward(x)

    model = Probe(2, 2)
    data = Images(BATCHES)
    pass_over(model, data.outputs(model), nn.CrossEntropyLoss())
    pass_over(model, data.outputs(model), nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
    assert seen == [(False, False)] * 2 + [(True, True)] * 2


@pytest.mark.parametrize(("clip", "change"), [(None, 3.0), (5.0, 3.0), (0.5, 0.5)])
def test_a_step_clips_the_norm_of_all_gradients(clip, change):
    w = nn.Parameter(ndl.Tensor([2.0, 1.0]))
    w.grad = ndl.Tensor([100.0, 100.0])  # of an earlier step: reset
    training.step((w * ndl.Tensor([0.0, 3.0])).sum(), optim.SGD([w], lr=1), clip)
    np.testing.assert_allclose(w.numpy(), [2, 1 - change], rtol=1e-5)


def test_lengths_are_numbers_of_batches():
    images = Images(DataLoader(NDArrayDataset(np.zeros((5, 2)), np.zeros(5)), 2))
    assert (len(images), images.items) == (3, 5)
    for rows, batches in ((8, 2), (9, 2), (10, 3)):
        text = Text(batchify(np.arange(rows * 3), 3), 4)
        assert (len(text), text.items) == (batches, rows * 3)


# ---- epochs and rows -------------------------------------------------------------------------------------------------

COLUMNS = ("epoch", "test_loss", "loss", "images_per_second")


def fit_two_epochs(metrics):
    model = identity()
    loader = DataLoader(NDArrayDataset(np.float32([[9, 0], [4, 0], [7, 0]]), np.array([0, 1, 0])), 2)
    opt = optim.SGD(model.parameters(), lr=0.01)
    return fit(model, Images(loader), Images(BATCHES), Last(), opt, metrics, 2)


def test_an_epoch_trains_and_then_tests():
    metrics = Metrics(COLUMNS, "")
    rows = fit_two_epochs(metrics)
    assert rows is metrics.rows
    assert [tuple(row) for row in rows] == [COLUMNS] * 2
    assert [row["epoch"] for row in rows] == [1, 2]
    # Two steps lower the weight of the first logit, by 0.01 times the input of each last row, and its bias by 0.01.
    weight, bias = np.eye(2)[0, 0], 0.0
    for row in rows:
        losses = []
        for x, count in ((4, 2), (7, 1)):
            losses += [weight * x + bias] * count
            weight, bias = weight - 0.01 * x, bias - 0.01
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["test_loss"] == pytest.approx((3 * (weight * 4 + bias) + weight * 8 + bias) / 4, rel=1e-5)
        assert row["images_per_second"] > 0


def test_every_row_is_in_the_file_before_it_is_printed(tmp_path, monkeypatch):
    def show(line, flush):
        with open(path, newline="", encoding="utf-8") as file:
            files.append(list(csv.reader(file)))
        lines.append(line)
        assert flush

    path, files, lines = tmp_path / "new" / "run" / "metrics.csv", [], []
    metrics = Metrics(COLUMNS, "epoch {epoch:2}: {loss:.1f}")
    metrics.write_to(path.parent)
    assert path.read_text("utf-8").splitlines() == [",".join(COLUMNS)]
    monkeypatch.setattr(builtins, "print", show)
    first, second = fit_two_epochs(metrics)
    monkeypatch.undo()
    cells = [[str(value) for value in row.values()] for row in (first, second)]
    assert files == [[list(COLUMNS), cells[0]], [list(COLUMNS), *cells]]
    assert lines == [f"epoch  1: {first['loss']:.1f}", f"epoch  2: {second['loss']:.1f}"]


# ---- the progress bar ------------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_progress_bar_of_the_training_pass(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with_bar = fit_two_epochs(Metrics(COLUMNS[:3], ""))
    monkeypatch.undo()
    assert terminal.getvalue().count("0/2 ") == 2  # one bar per epoch
    assert with_bar == fit_two_epochs(Metrics(COLUMNS[:3], ""))


def test_without_a_terminal_tqdm_is_not_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(fit_two_epochs(Metrics(COLUMNS, ""))) == 2


def test_a_terminal_without_tqdm_shows_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert len(fit_two_epochs(Metrics(COLUMNS, ""))) == 2
