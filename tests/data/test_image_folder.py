"""Folders of pictures by class, decoded as they are taken, and what is refused."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from needle.data import DataLoader, ImageFolderDataset, RandomCrop, Subset
from tests.pictures import SIDE, colors, floats, write

NAMES = ["ape/1.png", "ape/2.bmp", "ape/below/0.png", "bee/0.PNG", "bee/x.ppm"]


@pytest.fixture
def folder(tmp_path):
    """Two classes of pictures; `colors` of their numbers, in the order in which they must come."""
    for number, name in reversed([*enumerate(NAMES)]):
        write(tmp_path / "set" / name, colors(number))
    return tmp_path / "set"


def test_items_and_batches(folder):
    for name in ("ape/notes.txt", "ape/.hidden.png", "overview.png", ".git/x.png", "bee/.thumbnails/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no picture of a class")
    dataset = ImageFolderDataset(folder)
    assert dataset.classes == ("ape", "bee")
    assert dataset.paths == tuple(str(folder / name) for name in NAMES)
    np.testing.assert_array_equal(dataset.labels, np.array([0, 0, 0, 1, 1]), strict=True)
    image, label = dataset[-2]
    np.testing.assert_array_equal(image, floats(colors(3)), strict=True)
    assert label == 1
    expected = np.stack([floats(colors(number)) for number in range(5)])
    for index in (slice(1, 4), [4, 0], np.array([True, False, False, False, True])):
        for ours, array in zip(dataset[index], (expected, dataset.labels), strict=True):
            np.testing.assert_array_equal(ours, array[index], strict=True)
    ((images, labels),) = DataLoader(dataset, 5, prefetch=1)
    np.testing.assert_array_equal(images.numpy(), expected)
    assert labels.numpy().tolist() == dataset.labels.tolist()
    assert len(Subset(dataset, [3])[:][0]) == 1
    with pytest.raises(IndexError):
        dataset[5]


def test_pictures_are_decoded_when_they_are_taken(folder):
    dataset = ImageFolderDataset(folder)
    (folder / NAMES[1]).write_bytes(b"broken")
    dataset[0]
    with pytest.raises(ValueError, match=rf"^read_image: a picture must be one of .*, but {folder}/ape/2.bmp is not$"):
        next(iter(DataLoader(dataset, 3)))
    write(folder / NAMES[1], colors(9))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[1][0], floats(colors(9)))


def test_size_and_channels(folder):
    write(folder / "bee" / "wide.png", colors(9, size=(6, 20)))
    assert ImageFolderDataset(folder, (3, 2))[:][0].shape == (6, 3, 3, 2)
    assert ImageFolderDataset(folder, 4, 1)[:][0].shape == (6, 1, 4, 4)
    message = r"^ImageFolderDataset: images must have one size.* but \S+/1.png is \(3, 5, 4\) and \S+/wide.png \(3, 6"
    with pytest.raises(ValueError, match=message):
        ImageFolderDataset(folder)[:]


def test_transforms_have_the_channels_last(folder):
    seen = []

    def cut(image):
        seen.append(image.shape)
        return image[:2, :3]

    dataset = ImageFolderDataset(folder, transforms=[cut])
    assert dataset[0][0].shape == (3, 2, 3)
    assert seen == [(*SIDE, 3)]
    assert dataset.with_transforms([RandomCrop(1)])[:][0].shape == (5, 3, *SIDE)
    with pytest.raises(ValueError, match=r"^ImageFolderDataset: transforms must return images H x W x C, but got"):
        dataset.with_transforms([np.sum])[0]


def test_classes_of_the_training_set(folder):
    train = ("bee", "cow", "ape")
    test = ImageFolderDataset(folder, classes=train)
    assert test.labels.tolist() == [0, 0, 2, 2, 2]
    assert "bee" in test.paths[0]
    with pytest.raises(ValueError, match=r"^ImageFolderDataset: folder must have no class but bee, but \S+ has ape$"):
        ImageFolderDataset(folder, classes=["bee"])


def test_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"^ImageFolderDataset: folder must have a folder .* class, but \S+ has none$"):
        ImageFolderDataset(folder / "ape" / "below")
    (folder / "cow").mkdir()
    message = r"^ImageFolderDataset: a class must have at least one picture \(.png .*\), but \S+/cow has none$"
    with pytest.raises(ValueError, match=message):
        ImageFolderDataset(folder)
    message = r"^ImageFolderDataset: folder must be one that can be read, but {}: {}"
    for path, error, reason in (
        (tmp_path / "none", FileNotFoundError, "No such file"),
        (folder / NAMES[0], NotADirectoryError, "Not a directory"),
    ):
        with pytest.raises(error, match=message.format(re.escape(str(path)), reason)):
            ImageFolderDataset(path)
    with pytest.raises(ValueError, match=r"^ImageFolderDataset: channels must be one of 1, 3, but got 2$"):
        ImageFolderDataset(folder, channels=2)
    with pytest.raises(ValueError, match=r"^ImageFolderDataset: size must be at least 1, but got 0$"):
        ImageFolderDataset(folder, (0, 3))
    with pytest.raises(TypeError, match=r"^ImageFolderDataset: folder must be a path, but got int$"):
        ImageFolderDataset(3)
