"""STL-10: files written by its layout, read upright, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from needle.data import DataLoader, STL10Dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)  # as a viewer shows them
LABELS = [10, 1, 2, 2]


def content(images):
    """One channel after the other, each by columns."""
    return b"".join(image[:, column, channel].tobytes() for image in images for channel in range(3)
                    for column in range(96))  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test", "unlabeled"):
        (tmp_path / f"{split}_X.bin").write_bytes(content(IMAGES))
    for split in ("train", "test"):
        (tmp_path / f"{split}_y.bin").write_bytes(bytes(LABELS))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test", "unlabeled"])
def test_images_are_upright_and_labels_begin_at_0(folder, split):
    dataset = STL10Dataset(folder, split)
    ((images, *labels),) = DataLoader(dataset, 4)
    np.testing.assert_array_equal(images.numpy(), IMAGES.transpose(0, 3, 1, 2) / np.float32(255))
    assert [batch.numpy().tolist() for batch in labels] == ([] if split == "unlabeled" else [[9, 0, 1, 1]])
    if split != "unlabeled":
        assert dataset.classes[dataset[2][1]] == "bird"


def test_the_unpacked_folder(folder):
    (folder / "below" / "stl10_binary").mkdir(parents=True)
    for path in folder.glob("*.bin"):
        path.rename(folder / "below" / "stl10_binary" / path.name)
    assert len(STL10Dataset(folder / "below")) == 4


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("train_X.bin", content(IMAGES)[:-1], "images must have 27648 bytes each, but {} has 110591 bytes, 27647 over"),
        ("train_X.bin", b"", "there must be at least one image and pixel, but {} has shape (0, 3, 96, 96)"),
        ("train_y.bin", bytes(LABELS[:3]), "images and labels must agree in number, but {X} holds 4 and {} 3"),
        ("train_y.bin", bytes([1, 2, 11, 1]), "labels must lie in [1, 10], but label 2 of {} is 11"),
        ("train_y.bin", bytes(4), "labels must lie in [1, 10], but label 0 of {} is 0"),
    ],
)
def test_refused(folder, name, broken, message):
    (folder / name).write_bytes(broken)
    message = message.format(folder / name, X=folder / "train_X.bin")
    with pytest.raises(ValueError, match=f"^STL10Dataset: {re.escape(message)}$"):
        STL10Dataset(folder)


def test_options_and_missing_files(folder):
    with pytest.raises(ValueError, match=r"^STL10Dataset: split must be one of 'train', 'test', 'unlabeled', but got"):
        STL10Dataset(folder, "a")
    (folder / "test_y.bin").unlink()
    message = r"^STL10Dataset: folder must hold one of test_y\.bin, stl10_binary/test_y\.bin, but nothing "
    with pytest.raises(FileNotFoundError, match=message):
        STL10Dataset(folder, "test")
