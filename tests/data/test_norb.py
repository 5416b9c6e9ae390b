"""Matrices of NORB, written by their layout, plain and gzipped, and what is refused."""

from __future__ import annotations

import gzip
import re
import struct

import numpy as np
import pytest

from needle.data import DataLoader, NORBDataset, read_norb
from needle.data.binary import MappedArray
from tests.data.test_files import peak_of

CODES = {"float32": 0x1E3D4C51, "float64": 0x1E3D4C53, "int32": 0x1E3D4C54, "uint8": 0x1E3D4C55, "int16": 0x1E3D4C56}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 96, 96), np.uint8)
LABELS = np.array([4, 0, 1, 2, 3], np.int32)
TRAIN = "smallnorb-5x46789x9x18x6x2x96x96-training"
TEST = "smallnorb-5x01235x9x18x6x2x96x96-testing"


def norb_bytes(array):
    """The header has at least three sizes."""
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    header = struct.pack(f"<Ii{len(sizes)}i", CODES[array.dtype.name], array.ndim, *sizes)
    return header + array.astype(array.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 1, 3), (2, 3, 1, 4), ()])
def test_matrices_of_every_type(tmp_path, zipped, dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    content = norb_bytes(array)
    (tmp_path / "x").write_bytes(gzip.compress(content) if zipped else content)
    np.testing.assert_array_equal(read_norb(tmp_path / "x"), array, strict=True)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("train", [True, False])
def test_pairs_of_images(tmp_path, zipped, train):
    for kind, array in (("dat", IMAGES), ("cat", LABELS)):
        content = norb_bytes(array)
        path = tmp_path / f"{TRAIN if train else TEST}-{kind}.mat{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
    dataset = NORBDataset(tmp_path, train)
    ((images, labels),) = DataLoader(dataset, 5)
    np.testing.assert_array_equal(images.numpy(), IMAGES / np.float32(255))
    assert labels.numpy().tolist() == LABELS.tolist()
    assert dataset.classes[dataset[0][1]] == "car"
    assert isinstance(dataset.pixels, MappedArray) != zipped


GOOD = norb_bytes(LABELS)
RULE = "the magic number must be a type in 51, 53, 54, 55, 56 and 4c 3d 1e, and the number of dimensions must follow, "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", RULE + "but {} begins with nothing"),
        (b"MATLAB 5.0", RULE + "but {} begins with 4d 41 54 4c 41 42 20 35"),
        (GOOD[:19], "a header of 1 dimensions must have 20 bytes, but {} has 19"),
        (GOOD[:4] + b"\xff" * 4 + GOOD[8:], "a header of 4294967295 dimensions must have 17179869188 bytes, but {}"),
        (GOOD[:12] + b"\2" + GOOD[13:], "sizes after 1 dimensions must be 1, but {} has (2, 1)"),
        (GOOD[:-1], "data of shape (5,) and type int32 must have 20 bytes, but {} has 19"),
        (GOOD + b"1", "data of shape (5,) and type int32 must have 20 bytes, but {} has 21"),
        (gzip.compress(GOOD)[:-2], "a gzipped file must be complete, but {} is not: "),
        (struct.pack("<Ii", CODES["uint8"], 65) + b"\1\0\0\0" * 65 + b"1", "NumPy must be able to hold shape "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # gzipped bytes hold the time
)
def test_broken_matrices(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=f"^read_norb: {re.escape(message.format(tmp_path / 'x'))}"):
        read_norb(tmp_path / "x")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_matrix_takes_no_more_than_it_holds(tmp_path, zipped):
    content = struct.pack("<Ii3i", CODES["uint8"], 3, 2**30, 1, 1)
    (tmp_path / "x").write_bytes(gzip.compress(content) if zipped else content)
    assert peak_of("^read_norb: data of shape .* must have 1073741824 bytes, but", read_norb, tmp_path / "x") < 2**21


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:, 0], LABELS, "images must be uint8 N x 2 x H x W, but {dat} holds uint8 of shape (5, 96, 96)"),
        (IMAGES, LABELS[1:], "images and labels must agree in number, but {dat} holds 5 and {cat} 4"),
        (IMAGES, LABELS + 1, "labels must lie in [0, 4], but label 0 of {cat} is 5"),
    ],
)
def test_other_matrices(tmp_path, images, labels, message):
    paths = {kind: tmp_path / f"{TRAIN}-{kind}.mat" for kind in ("dat", "cat")}
    for path, array in zip(paths.values(), (images, labels), strict=True):
        path.write_bytes(norb_bytes(array))
    with pytest.raises(ValueError, match=f"^NORBDataset: {re.escape(message.format(**paths))}$"):
        NORBDataset(tmp_path)


def test_missing_files(tmp_path):
    message = rf"^NORBDataset: folder must hold one of {TEST}-dat\.mat, {TEST}-dat\.mat\.gz, but nothing of that name"
    with pytest.raises(FileNotFoundError, match=message):
        NORBDataset(tmp_path, False)
