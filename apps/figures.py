"""The pictures of a run, in one style: curves, confusion matrix, filters, mistakes, images beside each other.

Each function returns a matplotlib Figure that belongs to no window. `png` makes the bytes of a file, the same ones for
the same figure. The colors can be told apart with a color-vision deficiency.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from names import is_share, title
from results import Mistake, Pictures

__all__ = ["confusion", "curves", "filters", "mistakes", "pictures", "png"]

Row = Mapping[str, float]

TRAIN, HELD_OUT, OTHER, WRONG = "#0072b2", "#e69f00", "#4d4d4d", "#c0182b"  # Okabe and Ito's, and a red
MASKS = ListedColormap(["#f0f0f0", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"])
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "text.parse_math": False,  # the names of classes may have dollar signs
}
LOG_FROM = 10  # the ratio of the largest to the smallest loss from which its axis is logarithmic
MARKED = 40  # epochs up to which each has a marker
CLASSES, COUNTED, SHARED = 100, 25, 14  # up to which a confusion matrix names each, shows its counts, and its shares
TILES = 64  # filters of a picture


@contextmanager
def style() -> Iterator[None]:
    """The style of this file, whatever settings the user has."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # boxes stand for what the font lacks
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return file.getvalue()


# ---- curves ----------------------------------------------------------------------------------------------------------


def curves(rows: Sequence[Row], best: int | None = None) -> Figure:
    """Loss, metrics and a changing learning rate over the epochs, on training and held-out data; `best` is marked."""
    panels = _panels(rows)
    width = 3 if len(panels) in (3, 5, 6) else min(len(panels), 2)
    height = math.ceil(len(panels) / width)
    with style():
        figure = Figure(figsize=(1 + 3.6 * width, 0.3 + 2.7 * height), layout="constrained")
        grid = figure.subplots(height, width, squeeze=False).flat
        for axes, (name, lines) in zip(grid, panels.items(), strict=False):
            _draw_lines(axes, rows, name, lines, best)
        for axes in figure.axes[len(panels) :]:
            axes.remove()
    return figure


def _panels(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Name of a figure -> label of a line -> its column. The loss comes first, a changing rate last."""
    names = {name: None for row in rows for name in row}  # in order of appearance
    panels: dict[str, dict[str, str]] = {"loss": {"training": "loss"}}
    for name in names:
        for prefix, label in (("train_", "training"), ("val_", "validation"), ("test_", "test")):
            if name.startswith(prefix):
                panels.setdefault(name.removeprefix(prefix), {})[label] = name
    if len({row.get("lr") for row in rows}) > 1:
        panels["lr"] = {"": "lr"}
    return panels


def _draw_lines(axes: Axes, rows: Sequence[Row], figure: str, lines: Mapping[str, str], best: int | None) -> None:
    """Draw the columns of a figure over the epochs."""
    epochs = [row["epoch"] for row in rows]
    finite: list[float] = []
    lost: set[float] = set()  # epochs whose figure is not finite
    for label, name in lines.items():
        values = np.array([row.get(name, math.nan) for row in rows], "float64")
        shown = np.where(np.isfinite(values), values, math.nan)
        color, marker = {"training": TRAIN, "": OTHER}.get(label, HELD_OUT), "o" if len(rows) <= MARKED else None
        axes.plot(epochs, shown, color=color, marker=marker, markersize=3.5, label=label or None)
        if best in epochs and color == HELD_OUT:
            ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none", "label": "best epoch"}
            axes.plot(best, shown[epochs.index(best)], color=WRONG, zorder=3, **ring)
        finite += shown[np.isfinite(shown)].tolist()
        lost |= {row["epoch"] for row in rows if not math.isfinite(row.get(name, 0))}
    if lost:
        place = axes.get_xaxis_transform()  # x is an epoch, y a share of the height
        axes.plot(sorted(lost), [0.03] * len(lost), "x", color=WRONG, transform=place, label="not finite", zorder=3)
    if best in epochs:
        axes.axvline(best, color="#999999", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_title(title(figure)[0].upper() + title(figure)[1:])
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if figure == "loss" and finite and 0 < LOG_FROM * min(finite) < max(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    elif is_share(figure):
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.6g}%")
    elif figure == "lr":
        axes.set_ylim(bottom=0)
    if len(rows) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


# ---- classes ---------------------------------------------------------------------------------------------------------


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """A confusion matrix (n, n): the color is the share of the class (row), numbers are counts and shares."""
    n = len(matrix)
    side = min(max(0.5 * n, 2), 11)  # inches
    cell = 72 * side / n  # points
    counts = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, counts, out=np.zeros((n, n)), where=counts > 0)
    with style():
        figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))  # its root, so that few mistakes are seen
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.set(title="Confusion matrix", xlabel="predicted", ylabel="class")
        step = math.ceil(n / CLASSES)
        names = [name if len(name) <= 16 else f"{name[:15]}…" for name in classes]
        size = min(9.0, max(0.8 * cell * step, 3))
        upright = 0.7 * size * max(map(len, names)) > cell * step
        axes.set_xticks(range(0, n, step), names[::step], rotation=90 if upright else 0, fontsize=size)
        axes.set_yticks(range(0, n, step), names[::step], fontsize=size)
        if n <= COUNTED:
            for row, column in np.argwhere(matrix):
                share, dark = shares[row, column], shares[row, column] > 0.4
                text = f"{matrix[row, column]}" + (f"\n{_percent(share)}" if n <= SHARED else "")
                color, size = "white" if dark else "#222222", min(8.0, cell / (4 if n <= SHARED else 3))
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size, linespacing=1.1)
        bar = figure.colorbar(image, ax=axes, shrink=min(1, 4 / side), ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.set_label("share of the class")
        bar.outline.set_visible(False)
    return figure


def _percent(share: float) -> str:
    """A share in percent, never rounded up to 100% nor down to 0%."""
    return "<1%" if share < 0.01 else f"{math.floor(100 * share) if share > 0.99 else round(100 * share)}%"


def mistakes(found: Sequence[Mistake], classes: Sequence[str], count: int) -> Figure:
    """Images that were taken for another class, with prediction, class, and probability; `count` were looked at."""
    width = min(max(len(found), 1), 6)
    height = math.ceil(max(len(found), 1) / width)
    names = [(classes[mistake.predicted], classes[mistake.actual]) for mistake in found]
    gap, inches = (" ", 1.62) if all(len(a + b) <= 8 for a, b in names) else ("\n", 1.8)
    with style():
        figure = Figure(figsize=(max(1.35 * width, 4.5), 0.3 + inches * height if found else 1), layout="constrained")
        figure.suptitle("The surest mistakes", x=0.01, ha="left", fontsize=11, weight="bold")
        grid = figure.subplots(height, width, squeeze=False).flat
        for axes, mistake, (predicted, actual) in zip(grid, found, names, strict=False):
            _draw_image(axes, mistake.image)
            text = f"{predicted},{gap}not {actual}\n{_percent(mistake.probability)}"
            axes.set_xlabel(text, color=WRONG, fontsize=8.5, linespacing=1.15)
        for axes in figure.axes[len(found) :]:
            axes.set_axis_off()
        if not found:
            figure.axes[0].text(0.5, 0.5, f"None among {count:,} images.", ha="center", va="center")
    return figure


# ---- pictures --------------------------------------------------------------------------------------------------------


def filters(weight: np.ndarray) -> Figure:
    """The filters (O, C, *K) of a convolution: in color for three channels, else each channel from blue to red."""
    weight = np.nan_to_num(weight.astype("float64"), posinf=0, neginf=0)
    tiles, columns = _tiles(weight)
    rows = math.ceil(len(tiles) / columns)
    limit = float(np.abs(weight).max()) or 1.0
    ratio = max(tiles[0].shape[0] / tiles[0].shape[1], 0.4)
    width = min(0.62, 9 / columns)
    with style():
        size = max(width * columns, 3) + 0.9, max(width * rows * ratio, 0.8) + 0.5
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title("Filters of the first convolution")
        for i, tile in enumerate(tiles):
            row, column = divmod(i, columns)
            place = (column, column + 0.9, (row + 0.9) * ratio, row * ratio)
            colors = tile / (2 * limit) + 0.5 if tile.ndim == 3 else tile
            shown = axes.imshow(colors, "RdBu_r", vmin=-limit, vmax=limit, extent=place, interpolation="nearest")
            corner, height = (column, row * ratio), 0.9 * ratio
            axes.add_patch(Rectangle(corner, 0.9, height, fill=False, edgecolor="#cccccc", linewidth=0.8))
        axes.set(xlim=(-0.02, columns), ylim=(rows * ratio, -0.02))
        axes.set_axis_off()
        if tiles[0].ndim == 2:
            bar = figure.colorbar(shown, ax=axes, shrink=0.9, aspect=30, format="{x:.2g}")
            bar.outline.set_visible(False)
    return figure


def _tiles(weight: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Up to TILES pictures of filters (O, C, *K), each (K, K), in color (K, K, 3), or (C, K), and how many to a row."""
    if weight.ndim == 3:  # a filter of one spatial axis is a picture itself
        return [*weight[:TILES]], min(8, len(weight))
    if weight.ndim == 4 and weight.shape[1] == 3:
        return [*np.moveaxis(weight, 1, -1)[:TILES]], min(8, len(weight))
    planes = weight.reshape(len(weight), -1, *weight.shape[-2:])  # of all channels, and of all depths
    if planes.shape[1] == 1:
        return [*planes[:TILES, 0]], min(8, len(planes))
    columns = min(planes.shape[1], 16)
    return [*planes[: max(TILES // columns, 1), :columns].reshape(-1, *planes.shape[-2:])], columns


def pictures(columns: Pictures) -> Figure:
    """Rows of pictures, named at the left: of images and what a network made of them, in the same order."""
    width = max(map(len, columns.values()))
    with style():
        figure = Figure(figsize=(1.15 * width + 0.5, 1.2 * len(columns)), layout="constrained")
        grid = figure.subplots(len(columns), width, squeeze=False)
        for line, (name, images) in zip(grid, columns.items(), strict=True):
            line[0].set_ylabel(name, fontsize=9)
            for axes, image in zip(line, images, strict=True):
                _draw_image(axes, image)
    return figure


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (C, H, W), a signal (C, L), or a mask (H, W) of integers, scaled to what it holds."""
    if image.dtype.kind in "iub":
        axes.imshow(image % MASKS.N, MASKS, vmin=0, vmax=MASKS.N - 1, interpolation="nearest")
    elif image.ndim == 2:
        axes.plot(image.T, linewidth=0.9)
    else:
        image = np.nan_to_num(image.astype("float64"), posinf=1, neginf=0)
        low, high = min(np.min(image), 0), max(np.max(image), 1)
        if low < 0 or high > 1:
            low = np.min(image)
        scaled = (image - low) / ((high - low) or 1)
        pixels = np.moveaxis(scaled[:3], 0, -1) if len(image) in (3, 4) else scaled.mean(0)
        axes.imshow(pixels, "gray", vmin=0, vmax=1, interpolation="nearest")
    _frame(axes)


def _frame(axes: Axes) -> None:
    """Only a thin frame around a picture."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set(visible=True, color="#cccccc")
