"""Folders of pictures as datasets: layouts, modes, sizes, and what is refused, with its name."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("PIL")


import image_folder
from image_folder import read_folder
from needle.data import DataLoader, ImageDataset
from tests.pictures import SIDE, colors, floats, write


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures; `colors` of their numbers, in the order in which they must come."""
    names = ["ape/1.png", "ape/2.bmp", "bee/0.PNG", "bee/x.ppm"]
    for number, name in reversed([*enumerate(names)]):
        write(tmp_path / "set" / name, colors(number))
    return tmp_path / "set"


# ---- layouts ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(folder):
    (folder / "ape" / "notes.txt").write_text("no picture")
    (folder / "ape" / ".hidden.png").write_text("no picture")
    (folder / ".git").mkdir()
    (folder / "overview.png").write_text("not in a class")
    sets = read_folder(folder)
    assert sets.classes == ("ape", "bee")
    assert sets.val is sets.test is None
    assert type(sets.train) is ImageDataset
    images, labels = sets.train[:]
    np.testing.assert_array_equal(images, np.stack([floats(colors(number)) for number in range(4)]), strict=True)
    np.testing.assert_array_equal(labels, np.array([0, 0, 1, 1]), strict=True)
    ((batch, _),) = DataLoader(sets.train, 4)
    assert batch.shape == (4, 3, *SIDE)


@pytest.mark.parametrize("names", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_a_divided_folder(tmp_path, names):
    for number, name in enumerate(names):
        for label in ("b", "a", "10"):
            write(tmp_path / name / label / "x.png", colors(number))
    sets = read_folder(tmp_path)
    assert sets.classes == ("10", "a", "b")
    for number, name in enumerate(names):
        images, labels = getattr(sets, name)[:]
        np.testing.assert_array_equal(images, np.stack([floats(colors(number))] * 3))
        assert labels.tolist() == [0, 1, 2]
    assert [name for name in ("train", "val", "test") if getattr(sets, name) is not None] == list(names)


def test_a_class_may_be_named_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / name / "x.png", colors())
    assert read_folder(tmp_path).classes == ("bus", "train")


def test_links_are_followed(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("ape", "bee"):
        (tmp_path / "linked" / name).symlink_to(folder / name)
    assert len(read_folder(tmp_path / "linked").train) == 4


GRAY = colors(1, channels=1)


def test_one_colored_picture_makes_all_colored(tmp_path):
    for name in ("train", "test"):
        for label in "ab":
            write(tmp_path / name / label / "x.png", GRAY)
    assert read_folder(tmp_path).train[0][0].shape == (1, *SIDE)
    write(tmp_path / "test" / "b" / "x.png", colors())
    sets = read_folder(tmp_path)
    np.testing.assert_array_equal(sets.train[0][0], np.repeat(floats(GRAY), 3, 0))
    np.testing.assert_array_equal(sets.test[1][0], floats(colors()))
    assert read_folder(tmp_path, channels=1).test[1][0].shape == (1, *SIDE)


def test_pictures_of_many_sizes(folder):
    write(folder / "bee" / "wide.png", colors(9, size=(6, 20)))
    assert read_folder(folder, size=(3, 2)).train[:][0].shape == (5, 3, 3, 2)
    with pytest.raises(
        ValueError, match=r"one size, .*, but \S*ape/1.png is 5x4 and \S*wide.png 6x20 \(height x width"
    ):
        read_folder(folder)


# ---- refused ---------------------------------------------------------------------------------------------------------


def make(folder, *paths):
    for path in paths:
        write(folder / path, GRAY)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["x.png"], "ImageFolderDataset: folder must have a folder of pictures for each class, but {} has none"),
        (
            ["a/x.png"],
            "image_folder: a set must have at least two classes, a folder of pictures each, but {} has one, a",
        ),
        (
            ["train/a/x.png"],
            "image_folder: a set must have at least two classes, a folder of pictures each, but {}/train has one, a",
        ),
        (
            ["train/a/x.png", "train/b/x.png", "test/b/x.png", "test/d/x.png"],
            "ImageFolderDataset: folder must have no class but a, b, but {}/test has d",
        ),
    ],
)
def test_wrong_folders_are_named(tmp_path, paths, message):
    make(tmp_path, *paths)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(tmp_path))}$"):
        read_folder(tmp_path)


def test_a_set_may_lack_a_class_of_the_training_set(tmp_path):
    make(tmp_path, "train/a/x.png", "train/b/x.png", "val/b/x.png")
    assert read_folder(tmp_path).val.arrays[1].tolist() == [1]


def test_memory_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "LARGEST", 4 * 4 * 3 * 20 - 1)
    with pytest.raises(
        ValueError, match=r"must take at most 0 MiB, but \S+/set holds 4 pictures of 3x5x4 and takes 0; a"
    ):
        read_folder(folder)
    assert len(read_folder(folder, channels=1).train) == 4


def test_without_pillow_one_line_says_what_to_install(folder):
    code = "import sys; sys.modules['PIL'] = None; sys.path.append('apps'); import train; train.main()"
    command = [sys.executable, "-c", code, "--dataset", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("train: read_image: pictures need Pillow, by pip install 'needle-dl[data]', but: ")
    assert done.stderr.count("\n") == 1
