"""The pictures of a run: they show what they are given, and files are the same for the same figure."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import figures
from results import Mistake

NAMES = ["epoch", "loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "images_per_second"]
FIGURES = [(1, 2.0, 0.25, 1.5, 0.5, 0.1, 9.0), (2, 0.5, 0.75, 1.0, 0.75, 0.01, 9.0), (3, 0.1, 1.0, 1.2, 0.5, 0.0, 9.0)]
EPOCHS = [dict(zip(NAMES, row, strict=True)) for row in FIGURES]


def lines(axes):
    """Label -> values of the lines that a legend names, or that stand alone."""
    return {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines if len(line.get_xdata()) > 1}


def column(name):
    return [row[name] for row in EPOCHS]


def test_curves_show_loss_metrics_and_rate():
    loss, accuracy, rate = figures.curves(EPOCHS, best=2).axes
    assert [axes.get_title("left") for axes in (loss, accuracy, rate)] == ["Loss", "Accuracy", "Learning rate"]
    drawn = lines(loss)
    assert (drawn["training"], drawn["validation"]) == (column("loss"), column("val_loss"))
    drawn = lines(accuracy)
    assert (drawn["training"], drawn["validation"]) == (column("train_accuracy"), column("val_accuracy"))
    assert column("lr") in lines(rate).values()
    assert loss.get_yscale() == "log"
    assert accuracy.yaxis.get_major_formatter()(0.875) == "87.5%"


@pytest.mark.parametrize("best", [None, 2])
def test_the_best_epoch_is_marked(best):
    loss, *_ = figures.curves(EPOCHS, best).axes
    rings = [line for line in loss.lines if line.get_fillstyle() == "none"]
    assert [(ring.get_xdata().item(), ring.get_ydata().item()) for ring in rings] == ([(2, 1.0)] if best else [])


def test_one_epoch_without_held_out_data():
    (axes,) = figures.curves([{"epoch": 7, "loss": 0.5, "lr": 0.1}]).axes
    (line,) = axes.lines
    assert (line.get_xdata(), line.get_ydata(), line.get_marker()) == ([7], [0.5], "o")
    assert axes.get_xlim() == (6, 8)


def test_epochs_without_a_finite_loss_are_marked():
    rows = [*EPOCHS, {"epoch": 4, "loss": math.nan, "val_loss": math.inf}]
    loss, *_ = figures.curves(rows).axes
    (lost,) = [line for line in loss.lines if line.get_label() == "not finite"]
    assert lost.get_xdata() == [4]
    figures.png(figures.curves([{"epoch": 1, "loss": math.nan}]))


def test_curves_of_many_metrics_and_epochs():
    rows = [{"epoch": i, "loss": 1.0, "train_a_b": i, "train_iou": i, "test_c": i, "lr": i} for i in range(1, 100)]
    panels = figures.curves(rows).axes
    assert [axes.get_title("left") for axes in panels] == ["Loss", "A b", "IoU", "C", "Learning rate"]
    assert panels[0].lines[0].get_marker() == "None"


# ---- classes ---------------------------------------------------------------------------------------------------------


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_confusion_matrix_shows_counts_and_shares():
    matrix = np.array([[199, 1, 0], [0, 3, 1], [0, 0, 0]])
    axes = figures.confusion(matrix, ["cat", "a$b$", "fox"]).axes[0]
    assert texts(axes) == ["199\n99%", "1\n<1%", "3\n75%", "1\n25%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "a$b$", "fox"]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.995, 0.005, 0], [0, 0.75, 0.25], [0, 0, 0]])


@pytest.mark.parametrize("n", [1, 2, 20, 100, 250])
def test_confusion_matrices_of_any_size(n):
    names = [f"a class with a long name {i}" for i in range(n)]
    figure = figures.confusion(np.eye(n, dtype=int), names)
    axes = figure.axes[0]
    assert len(texts(axes)) == (n if n <= figures.COUNTED else 0)
    assert len(axes.get_xticks()) == min(n, 84 if n == 250 else n)
    assert all(len(label.get_text()) <= 16 for label in axes.get_xticklabels())
    width, height = figure.get_size_inches()
    assert max(width, height) < 14


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 6), (2, 8, 8), (4, 8, 8), (1, 30)])
def test_mistakes_name_both_classes(shape):
    image = np.linspace(-2, 3, math.prod(shape), dtype="float32").reshape(shape)
    figure = figures.mistakes([Mistake(image, 1, 0, 0.999), Mistake(image, 0, 1, 0.5)], ["cat", "dog"], 10)
    assert [axes.get_xlabel() for axes in figure.axes] == ["dog, not cat\n99%", "cat, not dog\n50%"]


def test_no_mistakes():
    figure = figures.mistakes([], ["cat", "dog"], 1234)
    assert texts(figure.axes[0]) == ["None among 1,234 images."]


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((16, 1, 3, 3), 16), ((100, 1, 3, 3), 64), ((8, 3, 5, 5), 8), ((8, 4, 3, 3), 32), ((64, 32, 3, 3), 64),
        ((8, 1, 5), 8), ((8, 4, 5), 8), ((2, 3, 3, 3, 3), 18), ((1, 1, 1, 1), 1),
    ],
)  # fmt: skip
def test_filters_of_any_shape(shape, count):
    weight = np.random.default_rng(0).standard_normal(shape).astype("float32")
    figure = figures.filters(weight)
    drawn = [image for axes in figure.axes for image in axes.images]
    assert len(drawn) == count
    first = drawn[0].get_array()
    if len(shape) == 4 and shape[1] == 3:
        np.testing.assert_allclose(first, np.moveaxis(weight[0], 0, -1) / (2 * np.abs(weight).max()) + 0.5, rtol=1e-6)
    else:
        expected = weight[0] if len(shape) == 3 else weight[0, 0] if len(shape) == 4 else weight[0, 0, 0]
        np.testing.assert_array_equal(first, expected)
        assert drawn[0].get_clim() == (-np.abs(weight).max(), np.abs(weight).max())


def test_filters_of_zeros():
    figures.png(figures.filters(np.zeros((2, 1, 3, 3), "float32")))


def test_pictures_stand_in_rows():
    columns = {
        "input": [np.full((1, 4, 4), level) for level in (0.25, 1.0)],
        "mask": [np.array([[0, 1], [2, 9]])] * 2,
    }
    figure = figures.pictures(columns)
    assert [axes.get_ylabel() for axes in figure.axes] == ["input", "", "mask", ""]
    assert [axes.images[0].get_array().max() for axes in figure.axes[:2]] == [0.25, 1]  # in [0, 1]: as it is
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), [[0, 1], [2, 1]])


def test_images_beyond_their_range_are_scaled():
    figure = figures.pictures({"input": [np.array([[[-1.0, 0.0, 3.0]]])]})
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[0, 0.25, 1]])


def test_the_same_figure_gives_the_same_file():
    first, second = (figures.png(figures.curves(EPOCHS, 2)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"matplotlib" not in first.lower()


def test_the_users_settings_do_not_matter():
    import matplotlib as mpl

    before = figures.png(figures.confusion(np.eye(2, dtype=int), ["a", "b"]))
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "image.cmap": "gray"}):
        assert figures.png(figures.confusion(np.eye(2, dtype=int), ["a", "b"])) == before
        assert mpl.rcParams["font.size"] == 30
    assert "matplotlib.pyplot" not in sys.modules


def test_names_that_the_font_lacks_are_no_warning():
    figures.png(figures.confusion(np.eye(2, dtype=int), ["犬", "猫"]))
