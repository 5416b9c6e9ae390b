"""Images as lines of numbers: with and without names and labels, in pieces, and what is refused."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from needle.data import CSVDataset, DataLoader, csv

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 3, 4), np.uint8)
LABELS = np.array([3, 0, 9, 9, 1, 255, 7], np.uint8)
NAMES = [f"pixel{number}" for number in range(12)]


def lines(table, names=None, end="\n"):
    rows = [] if names is None else [",".join(names)]
    return end.join([*rows, *(",".join(map(str, row)) for row in table.tolist())]) + end


FLAT = PIXELS.reshape(7, 12)
FIRST, LAST = np.c_[LABELS, FLAT], np.c_[FLAT, LABELS]
FILES = {
    "Kaggle": lines(FIRST, ["label", *NAMES]),
    "no names": lines(FIRST),
    "OpenML": lines(LAST, [*NAMES, "class"]),
    "quoted": lines(FIRST, ['"Label"', *NAMES]),
    "Windows": "\ufeff" + lines(FIRST, ["label", *NAMES], "\r\n"),
    "a mark, no names": "\ufeff" + lines(FIRST),
    "no last end": lines(FIRST)[:-1],
    "blank lines": lines(FIRST, ["label", *NAMES], "\n\n") + "\n",
    "spaces": lines(FIRST).replace(",", ", "),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("piece", [16, 2**20])
def test_labelled_images(tmp_path, monkeypatch, content, piece):
    """Pieces are shorter than a line, or longer than the file."""
    (tmp_path / "x.csv").write_text(content, "utf-8")
    columns = csv._columns
    monkeypatch.setattr(csv, "_columns", lambda *args: (columns(*args), monkeypatch.setattr(csv, "_PIECE", piece))[0])
    dataset = CSVDataset(tmp_path / "x.csv", (1, 3, 4))
    ((images, labels),) = DataLoader(dataset, 7)
    np.testing.assert_array_equal(images.numpy(), PIXELS / np.float32(255))
    np.testing.assert_array_equal(labels.numpy(), LABELS, strict=True)


@pytest.mark.parametrize("names", [None, NAMES])
def test_images_without_labels(tmp_path, names):
    (tmp_path / "test.csv").write_text(lines(FLAT, names))
    dataset = CSVDataset(tmp_path / "test.csv", (1, 3, 4))
    assert dataset.labels is None
    ((images,),) = DataLoader(dataset, 7)
    np.testing.assert_array_equal(images.numpy(), PIXELS / np.float32(255))
    (tmp_path / "test.csv").write_text(lines(FLAT, names))
    assert CSVDataset(tmp_path / "test.csv", (3, 2, 2))[1][0].shape == (3, 2, 2)


RULE = "a line must have 5 integers in [0, 255], but of {} "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a line must have 4 pixels, or one value more, but line 1 of {} has 1"),
        ("1,2,3\n", "a line must have 4 pixels, or one value more, but line 1 of {} has 3"),
        ("\n\n\n", "a line must have 4 pixels, or one value more, but line 1 of {} has 1"),
        ("label,a,b,c,d\n", "path must hold a line of pixels at least, but {} holds none"),
        ("label,a,b,c,d\n\n\n", "path must hold a line of pixels at least, but {} holds none"),
        ("x,a,b,c,d\n1,2,3,4,5\n", "the first or the last of 5 columns must be called label or class, but those of "),
        ("1,2,3,4,5\n \n", RULE + "line 2 has 1"),
        ("1,2,3,4,5\n1,2,3,4\n", RULE + "line 2 has 4"),
        ("label,a,b,c,d\n1,2,3,4,5\n\n1,2,3,4,5,6\n", RULE + "line 4 has 6"),
        ("label,a,b,c,d\n1,2,3\n1,2,3\n", RULE + "line 2 has 3"),
        ("1,2,3,4,5\n1,2,3,4,256\n", RULE + "line 2 has b'256'"),
        ("1,2,3,4,5\n1,2,3,4,-1\n", RULE + "line 2 has b'-1'"),
        ("1,2,3,4,5\n1,2,3,4,0.5\n", RULE + "line 2 has b'0.5'"),
        ("1,2,3,4,5\n1,2,,4,5\n", RULE + "line 2 has b''"),
        ("1,2,3,4,5\n1,2,3 3,4,5\n", RULE + "line 2 has b'3 3'"),
        ("1,2,3,4,5\n1,2,3,4,\0\n", RULE + "line 2 has b'\\x00'"),
        ("1,2,3,4,5\n1,2,3,4," + "1" * 10_000 + "\n", RULE + "line 2 has b'1111"),
    ],
)  # fmt: skip
def test_refused(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^CSVDataset: {re.escape(message.format(path))}"):
        CSVDataset(path, (1, 2, 2))


def test_options_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"^CSVDataset: shape must be one integer or 3, but got 2"):
        CSVDataset("x", (2, 2))
    with pytest.raises(FileNotFoundError, match=r"^CSVDataset: path must .* can be read, but none: No such file"):
        CSVDataset("none")


@pytest.mark.parametrize("content", [b"1,2,3,4,5\n" + b"1" * 2**24, b"," * 2**24, b"1,2,3,4,5\n" + b"1," * 2**23])
def test_a_long_line_is_not_kept(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^CSVDataset: a line must have "):
            CSVDataset(tmp_path / "x.csv", (1, 2, 2))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_memory_is_a_byte_for_each_pixel(tmp_path):
    with open(tmp_path / "x.csv", "w") as file:
        file.writelines(["255," * 99 + "255\n"] * 20_000)
    tracemalloc.start()
    dataset = CSVDataset(tmp_path / "x.csv", (1, 10, 10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 20_000
    assert peak < 2 * 2_000_000 + 6 * 2**20
