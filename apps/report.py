"""The report of a run: report.html, one page that needs no other file, and its pictures as PNG files beside it.

`write_report` takes plain data, so that it needs neither model nor data set. Pictures need matplotlib; without it the
page comes without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import needle as ndl
import page
from names import number, title
from needle.checkpoint import write_atomically
from results import Results

__all__ = ["write_report"]

Row = Mapping[str, float]

PLACED = ("model", "parameters", "classes", "commands")  # parts of the configuration with places of their own
CONFUSIONS = 10  # pairs of classes in the list of what is confused most
NO_PICTURES = (
    "There are no pictures: they need matplotlib, by pip install -e '.[apps]'. "
    "To resume the run then draws them, even if it is complete."
)


def write_report(
    folder: Path,
    *,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    status: str,
    best: int | None = None,
    summary: str = "",
    filters: np.ndarray | None = None,
    results: Results | None = None,
    results_of: str = "",
) -> Path:
    """Write report.html and its pictures into the folder of a run; returns the page's path.

    - `config`: what config.json holds. `model`, `parameters`, `commands`, `data`, `settings` and `versions` have places
      on the page, `classes` are names, and what else there is comes in a table.
    - `rows`: the figures of each epoch by name, as in metrics.csv; `best` is the best one's number.
    - `status`: how the run ended, in one line.
    - `summary`: the layers of the model, as text; `filters`: the weight (O, C, *K) of its first convolution.
    - `results`: what the model does with held-out data; `results_of`: which data, and weights of which epoch.

    Each file is written whole or not at all. Raises OSError if one cannot be written.
    """
    results = results or Results()
    names = [str(name).encode("utf-8", "replace").decode() for name in config.get("classes", ())]
    classes = names + [str(i) for i in range(len(names), 0 if results.confusion is None else len(results.confusion))]
    pictures = draw(rows, best, filters, results, classes)
    for name, png in (pictures or {}).items():
        write(folder / f"{name}.png", png)
    heading = f"{config.get('model', 'A model')} on {config.get('data', {}).get('name', 'data')}"
    shown = Pictures(pictures or {})
    parts = [
        f"<header>\n<h1>{page.escape(heading)}</h1>\n{page.paragraph(sentence(status), 'soft')}</header>\n",
        page.cards(key_facts(config, rows, best)),
        page.paragraph(NO_PICTURES) if pictures is None else "",
        page.section("Training", shown.html("curves", curves_text(rows, best)), figures_table(rows, best)),
        results_section(results, classes, results_of, shown),
        page.section(
            "Model", page.preformatted(summary) if summary else "", shown.html("filters", filters_text(filters))
        ),
        page.section("Settings", *settings_tables(config)),
        page.section("Epochs", epochs_table(rows, best)),
    ]
    write(folder / "report.html", page.page(heading, parts).encode("utf-8"))
    return folder / "report.html"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with write_atomically(path) as file:
        file.write(content)


def draw(
    rows: Sequence[Row], best: int | None, filters: np.ndarray | None, results: Results, classes: Sequence[str]
) -> dict[str, bytes] | None:
    """Name -> PNG of each picture; None without matplotlib."""
    try:
        import figures
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "PIL"):
            raise
        return None
    drawn = {}
    if rows:
        drawn["curves"] = figures.curves(rows, best)
    if results.confusion is not None:
        drawn["confusion"] = figures.confusion(results.confusion, classes)
    if results.pictures:
        drawn["examples"] = figures.pictures(results.pictures)
    elif results.confusion is not None:
        drawn["mistakes"] = figures.mistakes(results.mistakes, classes, int(results.confusion.sum()))
    if filters is not None:
        drawn["filters"] = figures.filters(filters)
    return {name: figures.png(figure) for name, figure in drawn.items()}


# ---- figures of the epochs -------------------------------------------------------------------------------------------


def sentence(text: str) -> str:
    """Text with a capital letter at its start and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")


def row_of(rows: Sequence[Row], epoch: int | None) -> Row | None:
    """The row of an epoch."""
    return next((row for row in rows if row["epoch"] == epoch), None)


def main_figure(row: Row) -> str:
    """The column that says most: a metric of held-out data, else of the training data, else a loss."""
    held_out = [name for name in row if name.startswith(("val_", "test_"))]
    metrics = [name for name in held_out if not name.endswith("_loss")]
    metrics.sort(key=lambda name: name.endswith("accuracy"))  # where there is another, that says more
    return next(iter([*metrics, *(name for name in row if name.startswith("train_")), *held_out, "loss"]))


def key_facts(config: Mapping[str, Any], rows: Sequence[Row], best: int | None) -> Iterator[tuple[str, str]]:
    """What stands at the top of the page."""
    if rows:
        last, chosen = rows[-1], row_of(rows, best) or rows[-1]
        name = main_figure(chosen)
        when = f", best epoch ({best})" if chosen["epoch"] == best else ""
        yield title(name) + when, number(name, chosen[name])
        yield "final training loss", number("loss", last["loss"])
    yield "epochs", str(len(rows))
    if "parameters" in config:
        yield "parameters", f"{config['parameters']:,}"


def columns(rows: Sequence[Row]) -> list[str]:
    """The names of all figures, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def cells(row: Row, names: Sequence[str]) -> list[str]:
    """The figures of a row as text."""
    return [number(name, row[name]) if name in row else "" for name in names]


def figures_table(rows: Sequence[Row], best: int | None) -> str:
    """The figures of the best epoch beside those of the last."""
    if not rows:
        return page.paragraph("No epoch was completed.")
    names, chosen = columns(rows), row_of(rows, best)
    shown = [rows[-1]] if chosen is None or chosen is rows[-1] else [chosen, rows[-1]]
    heads = (
        ["last epoch"]
        if chosen is None
        else ["best epoch", "last epoch"]
        if len(shown) == 2
        else ["best and last epoch"]
    )
    return page.table(["", *heads], zip(map(title, names), *(cells(row, names) for row in shown), strict=True))


def epochs_table(rows: Sequence[Row], best: int | None) -> str:
    """All figures; the best epoch is marked."""
    names = columns(rows)
    marked = next((i for i, row in enumerate(rows) if row["epoch"] == best), None)
    return page.table(list(map(title, names)), [cells(row, names) for row in rows], texts=0, marked=marked)


def curves_text(rows: Sequence[Row], best: int | None) -> str:
    """The curves in words."""
    ends = [
        f"{title(name)} from {number(name, rows[0][name])} to {number(name, rows[-1][name])}"
        for name in columns(rows)
        if name != "epoch" and not name.endswith("per_second") and name in rows[0] and name in rows[-1]
    ]
    marked = "" if row_of(rows, best) is None else f"; the best epoch, {best}, is marked"
    return f"Curves over {len(rows)} epochs: {', '.join(ends)}{marked}."


# ---- classes and pictures --------------------------------------------------------------------------------------------


class Pictures:
    """The pictures of the page, by name."""

    def __init__(self, pngs: Mapping[str, bytes]) -> None:
        self.pngs = pngs

    def html(self, name: str, alternative: str, caption: str = "") -> str:
        """A picture with that alternative text; nothing if there is none of that name."""
        return page.picture(self.pngs[name], alternative, caption) if name in self.pngs else ""


def results_section(results: Results, classes: Sequence[str], results_of: str, shown: Pictures) -> str:
    """What the model does with held-out data: classes, confusions, mistakes, examples."""
    about, matrix, parts = sentence(results_of), results.confusion, []
    if matrix is not None:
        right, total = int(matrix.trace()), int(matrix.sum())
        text = f"Confusion matrix of {len(matrix)} classes: {right:,} of {total:,} are on the diagonal."
        parts += [class_table(matrix, classes), confusions_table(matrix, classes)]
        parts = [f'<div class="tables">\n{"".join(parts)}</div>\n', shown.html("confusion", text)]
    if results.mistakes:
        pairs = ", ".join(f"{classes[m.predicted]}, not {classes[m.actual]}" for m in results.mistakes)
        caption = (
            "Each is shown as the network saw it, with its prediction, its class, and the prediction's probability."
        )
        parts.append(shown.html("mistakes", f"Images taken for another class: {pairs}.", caption))
    elif matrix is not None and not results.pictures:
        parts.append(page.paragraph(f"None of the {total:,} images is taken for another class."))
    parts.append(shown.html("examples", f"Pictures in rows: {', '.join(results.pictures)}."))
    return page.section("Held-out data", page.paragraph(about, "soft") if about else "", *parts) if any(parts) else ""


def class_table(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Precision, recall and F1 of each class, and their means."""
    shares = ndl.metrics.precision_recall_f1(matrix)
    means = ndl.metrics.precision_recall_f1(matrix, "macro")
    rows = [["mean of the classes", f"{matrix.sum():,}", *(f"{mean:.1%}" for mean in means)]]
    for name, count, *row in zip(classes, matrix.sum(1), *shares, strict=True):
        rows.append([name, f"{count:,}", *(f"{share:.1%}" for share in row)])
    head = ["class", "samples", "precision", "recall", "F1"]
    return page.table(head, rows, caption="How each class fares", marked=0)


def confusions_table(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """The pairs of classes that are confused most."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    rows = [[classes[i], classes[j], f"{wrong[i, j]:,}", f"{wrong[i, j] / matrix[i].sum():.1%}"] for i, j in pairs]
    return page.table(
        ["class", "taken for", "times", "share"], rows, texts=2, caption="What is taken for what most often"
    )


def filters_text(weight: np.ndarray | None) -> str:
    """The picture of the filters in words."""
    if weight is None:
        return ""
    out_channels, in_channels, *sizes = weight.shape
    return (
        f"The {out_channels} filters of the first convolution: {in_channels} channels of {'×'.join(map(str, sizes))}."
    )


# ---- settings --------------------------------------------------------------------------------------------------------


def plain(value: Any) -> str:
    """A setting as text."""
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)


def settings_tables(config: Mapping[str, Any]) -> Iterator[str]:
    """The commands, and a table of each group of settings."""
    if config.get("commands"):
        yield page.preformatted("\n".join(map(str, config["commands"])), "wrapped")
    groups = {name: group for name, group in config.items() if isinstance(group, Mapping)}
    others = {name: value for name, value in config.items() if name not in {*groups, *PLACED}}
    tables = [
        page.table(["", ""], [(key, plain(value)) for key, value in group.items()], texts=2, caption=name)
        for name, group in {**groups, "run": others}.items()
    ]
    if any(tables):
        yield f'<div class="tables">\n{"".join(tables)}</div>\n'
