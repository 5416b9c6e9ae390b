"""The report of a run: a page that holds what it is given, for any run, however it ended."""

from __future__ import annotations

import re
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pytest

import needle as ndl
import page
import report
import results
from results import Mistake, Results
from tests.apps.scripts import ENVIRONMENT, ROOT

VOID = {"meta", "img", "br", "hr"}
ROWS = [
    {"epoch": 1, "loss": 1.5, "train_accuracy": 0.5, "test_loss": 1.25, "test_accuracy": 0.625, "lr": 0.1},
    {"epoch": 2, "loss": 0.5, "train_accuracy": 0.75, "test_loss": 0.75, "test_accuracy": 0.875, "lr": 0.01},
    {"epoch": 3, "loss": 0.0625, "train_accuracy": 1, "test_loss": 0.8, "test_accuracy": 0.75, "lr": float("nan")},
]
CONFIG = {
    "script": "train", "commands": ["python apps/train.py --out a", "python apps/train.py --resume a"],
    "settings": {"batch_size": 64, "clip": None, "augment": True, "betas": [0.9, 0.99]}, "model": "TinyCNN",
    "parameters": 26090, "classes": ["cat", "dog & co", "<i>fox</i>"], "data": {"name": "pets", "train": 100},
    "versions": {"needle": "0.1.0"}, "started": "2026-01-02T03:04:05",
}  # fmt: skip
MISTAKES = [Mistake(np.full((1, 4, 4), 0.5), 0, 1, 0.75), Mistake(np.full((1, 4, 4), 0.5), 2, 0, 0.5)]
RESULTS = Results(np.array([[8, 0, 1], [4, 6, 0], [0, 0, 0]]), MISTAKES)
FILTERS = np.ones((4, 1, 3, 3))


class Page(HTMLParser):
    """The text of a page, its tables as lists of cells, and its images; elements must nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.images, self.words, self.tags = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are made, but not painted, which takes half a second each."""
    if find_spec("matplotlib"):
        import figures

        monkeypatch.setattr(figures, "png", lambda figure: b"\x89PNG" + bytes(16))


def written(folder, **parts):
    """The page of a report with these parts."""
    path = report.write_report(folder, **({"config": CONFIG, "rows": ROWS, "status": "Finished."} | parts))
    assert path == folder / "report.html"
    return Page(path.read_text("utf-8"))


def test_the_page_shows_the_run(tmp_path, unpainted):
    pytest.importorskip("matplotlib")
    shown = written(
        tmp_path, best=2, summary="Conv2d  1 × 3", filters=FILTERS, results=RESULTS, results_of="19 images, epoch 2."
    )
    for text in ("TinyCNN on pets", "Finished.", "26,090", "19 images, epoch 2.", "Conv2d 1 × 3", *CONFIG["commands"]):
        assert text in shown.text
    figures, classes, confusions, *settings, epochs = shown.tables
    assert figures[0] == ["", "best epoch", "last epoch"]
    assert ["test accuracy", "87.50%", "75.00%"] in figures
    assert ["learning rate", "0.01", "nan"] in figures
    assert classes == [
        ["class", "samples", "precision", "recall", "F1"],
        ["mean of the classes", "19", "55.6%", "49.6%", "50.4%"],
        ["cat", "9", "66.7%", "88.9%", "76.2%"],
        ["dog & co", "10", "100.0%", "60.0%", "75.0%"],
        ["<i>fox</i>", "0", "0.0%", "0.0%", "0.0%"],
    ]
    assert confusions[1:] == [["dog & co", "cat", "4", "40.0%"], ["cat", "<i>fox</i>", "1", "11.1%"]]
    assert [["batch_size", "64"], ["clip", "–"], ["augment", "yes"], ["betas", "0.9, 0.99"]] in settings
    assert [["script", "train"], ["started", "2026-01-02T03:04:05"]] in settings
    assert epochs[0] == ["epoch", "loss", "training accuracy", "test loss", "test accuracy", "learning rate"]
    assert epochs[2] == ["2", "0.5", "75.00%", "0.75", "87.50%", "0.01"]
    assert len(epochs) == 1 + len(ROWS)


def test_the_page_needs_no_other_file(tmp_path):
    """The pictures are those of the folder, and nothing is loaded from elsewhere."""
    pytest.importorskip("matplotlib")
    shown = written(tmp_path, results=RESULTS, filters=FILTERS)
    names = ["curves", "confusion", "mistakes", "filters"]
    for image, name in zip(shown.images, names, strict=True):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert b64decode(data) == (tmp_path / f"{name}.png").read_bytes()
        assert len(image["alt"]) > 30
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", *(f"{name}.png" for name in names)}
    assert not {"script", "link", "iframe"} & {*shown.tags}
    style = re.sub(r"base64,[^\"]*", "", (tmp_path / "report.html").read_text("utf-8"))
    assert "http" not in style
    assert "url(" not in style
    assert {"main", "header", "section", "figure", "table", "caption"} <= {*shown.tags}


def test_the_same_run_gives_the_same_page(tmp_path, unpainted):
    written(tmp_path, results=RESULTS)
    first = (tmp_path / "report.html").read_bytes()
    written(tmp_path, results=RESULTS)
    assert (tmp_path / "report.html").read_bytes() == first


def test_a_run_without_epochs(tmp_path, unpainted):
    shown = written(tmp_path, rows=[], config={}, status="stopped by Ctrl-C")
    assert "No epoch was completed." in shown.text
    assert "Stopped by Ctrl-C." in shown.text
    assert not shown.images


def test_a_run_without_held_out_data(tmp_path, unpainted):
    """And with columns that not every row has."""
    shown = written(tmp_path, rows=[{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "lr": 0.1}], best=1)
    assert shown.tables[-1] == [["epoch", "loss", "learning rate"], ["1", "1", ""], ["2", "0.5", "0.1"]]
    assert shown.tables[0][0] == ["", "best epoch", "last epoch"]


@pytest.mark.parametrize("best", [3, None, 9])
def test_the_best_epoch_may_be_the_last_or_unknown(tmp_path, unpainted, best):
    assert written(tmp_path, best=best).tables[0][0] == ["", "best and last epoch" if best == 3 else "last epoch"]


def test_pictures_of_other_tasks(tmp_path, unpainted):
    pytest.importorskip("matplotlib")
    images = [np.zeros((1, 4, 4)), np.ones((1, 4, 4))]
    shown = written(tmp_path, results=Results(pictures={"input": images, "output": images}))
    assert "Pictures in rows: input, output." in [image["alt"] for image in shown.images]
    assert (tmp_path / "examples.png").exists()
    assert not (tmp_path / "mistakes.png").exists()


def test_names_are_shown_as_they_are(tmp_path, unpainted):
    """Neither markup, nor mathematics, nor bytes that are no text disturb the page."""
    names = ["<b>", "$x_1$", "caf\udce9"]
    shown = written(
        tmp_path, config={"classes": names, "model": "<script>", "data": {"name": "a\udcffb"}}, results=RESULTS
    )
    assert "script" not in shown.tags
    assert [row[0] for row in shown.tables[1][2:]] == ["<b>", "$x_1$", "caf?"]
    assert "<script> on a?b" in shown.text


def test_a_network_of_nans_is_reported(tmp_path):
    """What is left of a run that diverged in its first epoch."""
    images = ndl.Tensor(np.array([0.5, np.nan, np.inf], "float32").reshape(3, 1, 1, 1))
    found = results.classification(
        [(images, images.reshape((3, 1)) * np.nan * np.ones((1, 3)), ndl.Tensor([0, 1, 2]))], 3
    )
    rows = [{"epoch": 1, "loss": float("nan"), "train_accuracy": 0.5, "lr": float("inf")}]
    shown = written(tmp_path, rows=rows, filters=FILTERS * np.nan, results=found, best=1)
    assert ["loss", "nan"] in shown.tables[0]
    assert [mistake.probability for mistake in found.mistakes] == [0, 0]


def test_classes_without_names_are_numbered(tmp_path, unpainted):
    shown = written(tmp_path, config={}, results=RESULTS)
    assert [row[0] for row in shown.tables[1][2:]] == ["0", "1", "2"]


def test_no_mistakes(tmp_path, unpainted):
    shown = written(tmp_path, config={}, results=Results(np.diag([3, 4])))
    assert "None of the 7 images is taken for another class." in shown.text


def test_without_matplotlib_the_page_says_how_to_get_pictures(tmp_path):
    script = (
        "import sys; sys.modules['matplotlib'] = None; sys.path.insert(0, 'apps'); import pathlib, report\n"
        "report.write_report(pathlib.Path(sys.argv[1]), config={}, rows=[{'epoch': 1, 'loss': 1.0}], status='')"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, env=ENVIRONMENT, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert report.NO_PICTURES in Page((tmp_path / "report.html").read_text("utf-8")).text


def test_a_report_that_cannot_be_written_leaves_the_former_one(tmp_path, unpainted, monkeypatch):
    written(tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr(page, "page", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        written(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    with pytest.raises(OSError, match="missing"):
        report.write_report(tmp_path / "missing", config={}, rows=ROWS, status="Finished.")
