"""Run train.py and draw the run: loss, accuracy, and the test images that the network is least sure of.

    python apps/plot_run.py docs/images/training.png      # the picture in the README

Further options are those of train.py. Needs matplotlib: pip install -e '.[apps]'.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import errors
import needle as ndl
import train
from needle import nn
from needle.data import DataLoader
from training import Row

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    errors.leave(f"plot_run: matplotlib must be installed, by pip install -e '.[apps]', but: {error}", 2)

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
TRAIN, TEST, WRONG = "#0072b2", "#e69f00", "#c0182b"  # readable with a color-vision deficiency
PNG: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
HARDEST = 12  # images in the picture


def draw_curves(axes: Axes, rows: Sequence[Row], names: tuple[str, str], title: str) -> None:
    """Draw two columns of the rows over the epochs: the training set's and the test set's."""
    epochs = [row["epoch"] for row in rows]
    for name, label, color in zip(names, ("training", "test"), (TRAIN, TEST), strict=True):
        axes.plot(epochs, [row[name] for row in rows], color=color, marker="o", markersize=3.5, label=label)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def hardest(model: nn.Module, loader: DataLoader) -> list[tuple[np.ndarray, int, int, float]]:
    """The least certain predictions: (image (H, W), prediction, label, probability of the prediction) of each."""
    model.eval()
    predictions: list[tuple[np.ndarray, int, int, float]] = []
    with ndl.no_grad():
        for images, labels in loader:
            probabilities = ndl.exp(ndl.logsoftmax(model(images))).numpy()
            best = probabilities.argmax(1), labels.numpy(), probabilities.max(1)
            predictions += zip(images.numpy()[:, 0], *best, strict=True)
    return sorted(predictions, key=lambda entry: entry[-1])[:HARDEST]


def draw_image(axes: Axes, image: np.ndarray, prediction: int, label: int, probability: float) -> None:
    """Draw an image with its prediction and probability below, in red if the prediction is wrong."""
    right = prediction == label
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    text = f"{prediction}" if right else f"{prediction}, not {label}"
    axes.set_xlabel(f"{text}\n{probability:.0%}", color="black" if right else WRONG, fontsize=9)
    for side in axes.spines.values():
        side.set(visible=True, color="#cccccc" if right else WRONG)


def draw(rows: Sequence[Row], examples: Sequence[tuple[np.ndarray, int, int, float]]) -> Figure:
    """The picture of a run, with some images of its test set."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.3), layout="constrained")
        curves, strip = figure.subfigures(2, 1, height_ratios=[3, 1.25], hspace=0.04, squeeze=False)[:, 0]
        left, right = curves.subplots(1, 2)
        draw_curves(left, rows, ("loss", "test_loss"), "Loss")
        left.set_yscale("log")
        left.yaxis.set_major_formatter("{x:g}")
        draw_curves(right, rows, ("train_accuracy", "test_accuracy"), "Accuracy")
        right.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        right.yaxis.set_major_formatter("{x:.0%}")
        right.axhline(1, color="#888888", linewidth=0.8, zorder=1)
        title = f"The {len(examples)} test images that the network is least sure of"
        strip.suptitle(title, x=0.012, ha="left", fontsize=11, weight="bold")
        for axes, example in zip(strip.subplots(1, len(examples), squeeze=False)[0], examples, strict=True):
            draw_image(axes, *example)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path, help="the file to write; its suffix chooses the format")
    options = train.parse(arguments, parser)
    formats = Figure().canvas.get_supported_filetypes()
    if options.picture.suffix[1:].lower() not in formats:
        parser.error(f"picture must end in one of .{', .'.join(formats)}, but got {options.picture}")
    with errors.user_errors("plot_run"):
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        place = options.picture if options.picture.exists() else options.picture.parent
        if options.picture.is_dir() or not os.access(place, os.W_OK):
            raise ValueError(f"picture must be a file that can be written, but {options.picture} is none")
    model, rows = train.run(options)
    with errors.interruptible(lambda: "; there is no picture"), errors.user_errors("plot_run"):
        _, test_set = train.load(options.data)
        examples = hardest(model, DataLoader(test_set, 256, device=next(iter(model.parameters())).device))
        draw(rows, examples).savefig(options.picture, dpi=150, **(PNG if options.picture.suffix == ".png" else {}))


if __name__ == "__main__":
    main()
