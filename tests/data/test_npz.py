"""Datasets in .npz files, written here by NumPy in the layouts of their authors, and what is refused."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

import needle as ndl
from needle import nn
from needle.data import DataLoader, KMNISTDataset, MedMNISTDataset, PixelDataset, read_npz

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 28, 28), np.uint8)
COLOR = RANDOM.integers(0, 256, (6, 28, 28, 3), np.uint8)
VOLUMES = RANDOM.integers(0, 256, (6, 28, 28, 28), np.uint8)
LABELS = np.array([[3], [0], [1], [1], [2], [0]], np.uint8)
FINDINGS = RANDOM.integers(0, 2, (6, 14), np.uint8)


def med(path, images=GRAY, labels=LABELS, save=np.savez_compressed):
    arrays = {f"{split}_{kind}": np.roll(array, shift, 0)
              for shift, split in enumerate(("train", "val", "test"))
              for kind, array in (("images", images), ("labels", labels))}  # fmt: skip
    save(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_mnist(tmp_path, save):
    path = tmp_path / "mnist.npz"
    save(path, x_test=GRAY[:2], x_train=GRAY, y_train=LABELS[:, 0], y_test=LABELS[:2, 0])
    dataset = PixelDataset(read_npz(path, "x_train")[:, None], read_npz(path, "y_train"))
    np.testing.assert_array_equal(dataset[:][0], GRAY[:, None] / np.float32(255))
    assert dataset[0][1] == 3


@pytest.mark.parametrize(("name", "last"), [("kmnist", 9), ("k49", 48)])
@pytest.mark.parametrize("part", ["train", "test"])
def test_kuzushiji(tmp_path, name, last, part):
    labels = np.array([0, last, 1, 2, 3, 4], np.uint8)
    np.savez_compressed(tmp_path / f"{name}-{part}-imgs.npz", GRAY)
    np.savez_compressed(tmp_path / f"{name}-{part}-labels.npz", labels)
    dataset = KMNISTDataset(tmp_path, part == "train", name)
    np.testing.assert_array_equal(dataset[1:3][0], GRAY[1:3, None] / np.float32(255))
    assert dataset.labels.tolist() == labels.tolist()
    labels[2] = last + 1
    np.savez_compressed(tmp_path / f"{name}-{part}-labels.npz", labels)
    message = rf"^KMNISTDataset: labels must lie in \[0, {last}\], but label 2 of \S+-labels.npz is {last + 1}$"
    with pytest.raises(ValueError, match=message):
        KMNISTDataset(tmp_path, part == "train", name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("images", "expected"),
    [(GRAY, GRAY[:, None]), (COLOR, COLOR.transpose(0, 3, 1, 2)), (VOLUMES, VOLUMES[:, None])],
    ids=["gray", "color", "volumes"],
)
def test_medmnist(tmp_path, save, images, expected):
    path = med(tmp_path / "x.npz", images, save=save)
    for shift, split in enumerate(("train", "val", "test")):
        dataset = MedMNISTDataset(path, split)
        np.testing.assert_array_equal(dataset[:][0], np.roll(expected, shift, 0) / np.float32(255), strict=True)
        np.testing.assert_array_equal(dataset.labels, np.roll(LABELS[:, 0], shift), strict=True)
    ((batch, labels),) = DataLoader(dataset, 6)
    logits = batch.reshape((6, -1))[:, :4]
    assert nn.functional.cross_entropy(logits, labels).shape == ()


def test_several_findings_fit_the_binary_cross_entropy(tmp_path):
    dataset = MedMNISTDataset(med(tmp_path / "chestmnist.npz", labels=FINDINGS))
    np.testing.assert_array_equal(dataset.labels, FINDINGS.astype(np.float32), strict=True)
    ((_, labels),) = DataLoader(dataset, 6)
    assert nn.functional.binary_cross_entropy_with_logits(ndl.zeros(6, 14), labels).shape == ()


def test_only_the_arrays_asked_for_are_read(tmp_path):
    """The others may be objects."""
    path = tmp_path / "x.npz"
    np.savez(path, train_images=GRAY, train_labels=LABELS, info=np.array([{"a": 1}], object))
    assert len(MedMNISTDataset(path)) == 6
    message = rf"^read_npz: path must be a whole .npz file with info, but {path} holds 'info.npy' of type '|O'"
    with pytest.raises(ValueError, match=message):
        read_npz(path, "info")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"^KMNISTDataset: folder must hold k49-test-imgs.npz, but nothing .*; Kuzushiji-MNIST is at https",
    ):
        KMNISTDataset(tmp_path, False, "k49")
    with pytest.raises(FileNotFoundError, match=r"^MedMNISTDataset: path must .* can be read, but none: No such file"):
        MedMNISTDataset("none")


FILE = "MedMNISTDataset: path must be a whole .npz file with train_images, train_labels, but {} "


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": GRAY}, FILE + "holds train_images, without an array 'train_labels'"),
        ({}, FILE + "holds nothing, without an array 'train_images'"),
        (
            {"train_images": GRAY.astype(float), "train_labels": LABELS},
            "MedMNISTDataset: images must be uint8 N x H x W, but {} holds float64 of shape (6, 28, 28)",
        ),
        (
            {"train_images": GRAY[0, 0], "train_labels": LABELS},
            "MedMNISTDataset: images must be uint8 N x H x W, but {} holds uint8 of shape (28,)",
        ),
        (
            {"train_images": GRAY[:0], "train_labels": LABELS[:0]},
            "MedMNISTDataset: there must be at least one image and pixel, but {} has shape (0, 28, 28)",
        ),
        (
            {"train_images": GRAY, "train_labels": LABELS[1:]},
            "MedMNISTDataset: images and labels must agree in number, but {0} holds 6 and {0} 5",
        ),
        (
            {"train_images": GRAY, "train_labels": LABELS / 2},
            "MedMNISTDataset: labels must be integers (N,) or (N, 1), but {} holds float64 of shape (6, 1)",
        ),
        (
            {"train_images": GRAY, "train_labels": LABELS.astype(int) - 1},
            "MedMNISTDataset: labels must lie in [0, 255], but label 1 of {} is -1",
        ),
        (
            {"train_images": GRAY, "train_labels": FINDINGS * 2},
            (
                "MedMNISTDataset: labels of several classes must be 6 x K zeros and ones, "
                "but {} holds uint8 of shape (6, 14), up to 2"
            ),
        ),
    ],
)
def test_refused(tmp_path, arrays, message):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(path))}$"):
        MedMNISTDataset(path)


def test_options(tmp_path):
    with pytest.raises(ValueError, match=r"^MedMNISTDataset: split must be one of 'train', 'val', 'test', but"):
        MedMNISTDataset("x", "a")
    with pytest.raises(ValueError, match=r"^KMNISTDataset: name must be one of 'kmnist', 'k49', but got 'mnist'$"):
        KMNISTDataset(tmp_path, name="mnist")
    with pytest.raises(TypeError, match=r"^KMNISTDataset: train must be a bool, but got str$"):
        KMNISTDataset(tmp_path, "train")


def test_a_changed_byte_is_noticed(tmp_path):
    file = io.BytesIO()
    np.savez_compressed(file, arr_0=GRAY)
    content = bytearray(file.getvalue())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^read_npz: path must be a whole .npz file with arr_0, but "):
        read_npz(tmp_path / "x.npz", "arr_0")
