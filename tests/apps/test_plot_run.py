"""The picture of a run."""

import os

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import needle as ndl
import plot_run
from needle import nn
from needle.data import DataLoader, NDArrayDataset
from tests.apps.scripts import error_of, write_digits


def test_the_least_certain_predictions_come_first():
    class Probabilities(nn.Module):
        def forward(self, x):
            return ndl.log(ndl.concatenate([x, 1 - x], axis=1).reshape((len(x), 2)))

    p = np.linspace(0.04, 0.99, 20, dtype="float32")
    loader = DataLoader(NDArrayDataset(p.reshape(-1, 1, 1, 1), np.zeros(20, int)), 7)
    results = plot_run.hardest(Probabilities(), loader)
    expected = sorted(p, key=lambda value: max(value, 1 - value))[:12]
    assert [image.item() for image, *_ in results] == expected
    assert [prediction for _, prediction, _, _ in results] == [int(value < 0.5) for value in expected]
    np.testing.assert_allclose(
        [result[-1] for result in results], np.maximum(expected, 1 - np.array(expected)), rtol=1e-6
    )


def test_the_picture_shows_the_run(tmp_path, monkeypatch, capsys):
    figures = []
    draw = plot_run.draw

    def record(rows, examples):
        figures.append((draw(rows, examples), rows, examples))
        return figures[-1][0]

    monkeypatch.setattr(plot_run, "draw", record)
    folder = write_digits(tmp_path / "data")
    path = tmp_path / "images" / "run.png"
    plot_run.main([str(path), "--dataset", "mnist", "--data", str(folder), "--epochs", "2"])
    assert path.read_bytes().startswith(b"\x89PNG")
    ((figure, rows, examples),) = figures
    loss, accuracy, *images = figure.get_axes()
    lines = [line.get_ydata().tolist() for line in (*loss.lines, *accuracy.lines[:2])]
    assert lines == [[row[name] for row in rows] for name in ("loss", "test_loss", "train_accuracy", "test_accuracy")]
    for axes, (_, prediction, label, probability) in zip(images, examples, strict=True):
        text = f"{prediction}" if prediction == label else f"{prediction}, not {label}"
        assert axes.get_xlabel() == f"{text}\n{probability:.0%}"


def test_a_test_set_of_one_image(tmp_path, capsys):
    folder = write_digits(tmp_path / "data", count=2)
    path = tmp_path / "run.svg"
    plot_run.main([str(path), "--dataset", "mnist", "--data", str(folder), "--epochs", "1"])
    assert "<svg" in path.read_text("utf-8")


def test_a_picture_that_cannot_be_written_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, message in {
        "run.xyz": "error: picture must end in one of .",
        "folder.png": f"plot_run: picture must be a file that can be written, but {tmp_path / 'folder.png'} is none",
        "file/run.png": "plot_run: [Errno ",
    }.items():
        assert message in error_of(plot_run, capsys, tmp_path / name)[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != tmp_path)
        assert "a file that can be written" in error_of(plot_run, capsys, tmp_path / "run.png")[-1]
    assert "--lr must be finite" in error_of(plot_run, capsys, tmp_path / "run.png", "--lr", "nan")[-1]
