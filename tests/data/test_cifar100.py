"""CIFAR-100: both formats, both kinds of labels, and what is refused."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from needle.data import CIFAR100Dataset, DataLoader
from needle.data.binary import MappedArray
from tests.data.test_cifar import python2_array

COUNT = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 3072), np.uint8)
FINE, COARSE = [0, 99, 5, 19, 50, 3], [19, 0, 4, 4, 2, 1]
NAMES = [f"boat_s_{number:06}.png" for number in range(COUNT)]


def python2(pixels=PIXELS, fine=FINE, coarse=COARSE):
    """A file as Python 2 pickles it, with its other entries: a dict with byte strings as keys."""

    def numbers(labels):
        return b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"

    names = b"](" + b"".join(b"U" + bytes([len(name)]) + name.encode() for name in NAMES) + b"e"
    return (
        b"\x80\x02}(U\x09filenames" + names + b"U\x0bbatch_labelU\x15training batch 1 of 1"
        + b"U\x0bfine_labels" + numbers(fine) + b"U\x0dcoarse_labels" + numbers(coarse)
        + b"U\x04data" + python2_array(pixels) + b"u."
    )  # fmt: skip


def python3(pixels=PIXELS, fine=FINE, coarse=COARSE):
    keys = {b"filenames": NAMES, b"fine_labels": [*fine], b"coarse_labels": [*coarse], b"data": pixels}
    return pickle.dumps(keys, 2)


def binary(pixels=PIXELS, fine=FINE, coarse=COARSE):
    return b"".join(bytes([c, f]) + row.tobytes() for c, f, row in zip(coarse, fine, pixels, strict=True))


FORM = pytest.mark.parametrize(
    ("name", "write"),
    [("cifar-100-python/{}", python2), ("{}", python3), ("{}.bin", binary), ("cifar-100-binary/{}.bin", binary)],
)


@FORM
@pytest.mark.parametrize("part", ["train", "test"])
def test_both_formats(tmp_path, name, write, part):
    path = tmp_path / name.format(part)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(write())
    for kind, expected in (("fine", FINE), ("coarse", COARSE)):
        dataset = CIFAR100Dataset(tmp_path, part == "train", kind)
        ((images, labels),) = DataLoader(dataset, COUNT)
        np.testing.assert_array_equal(images.numpy(), (PIXELS / np.float32(255)).reshape(-1, 3, 32, 32))
        assert labels.numpy().tolist() == expected
        assert labels.dtype == np.uint8
    assert isinstance(dataset.pixels, MappedArray) == (write is binary)


def test_the_pickle_written_here_is_what_python_reads():
    read = pickle.loads(python2(), encoding="bytes")
    np.testing.assert_array_equal(read[b"data"], PIXELS)
    assert (read[b"fine_labels"], read[b"coarse_labels"]) == (FINE, COARSE)
    assert read[b"filenames"][1] == NAMES[1].encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test", python3(fine=[0, 100, 0, 0, 0, 0]), "labels must be integers in [0, 99], but label 1 of {} is 100"),
        ("test.bin", binary(fine=[7] * 5 + [200]), "labels must be integers in [0, 99], but label 5 of {} is 200"),
        (
            "test.bin",
            binary()[:-1],
            "a binary file must consist of records of 3074 bytes, but {} has 18443 bytes, 3073 over",
        ),
        ("test.bin", b"", "a file must hold at least one image, but {} holds none"),
        (
            "test",
            pickle.dumps({"data": PIXELS, "labels": FINE}),
            "the dict must have a key fine_labels, but {} has data, labels",
        ),
        ("test", python3(fine=FINE[1:]), "images and labels must agree in number, but {} holds 6 images and 5 labels"),
        ("test", pickle.dumps({"data": 3, "fine_labels": FINE}), "data must be an array, but {} holds 3"),
        ("test", b"\x80\x02cos\nsystem\n.", '{} must be a complete pickle of images, but: UnpicklingError("os.sys'),
    ],
)  # fmt: skip
def test_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^CIFAR100Dataset: {re.escape(message.format(path))}"):
        CIFAR100Dataset(tmp_path, False)


def test_options_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"^CIFAR100Dataset: labels must be one of 'fine', 'coarse', but got 'all'$"):
        CIFAR100Dataset(tmp_path, True, "all")
    with pytest.raises(TypeError, match=r"^CIFAR100Dataset: train must be a bool, but got str$"):
        CIFAR100Dataset(tmp_path, "train")
    names = "train, train.bin, cifar-100-python/train, cifar-100-binary/train.bin"
    with pytest.raises(FileNotFoundError, match=f"^CIFAR100Dataset: folder must hold one of {names}, but nothing"):
        CIFAR100Dataset(tmp_path, True)


def test_a_file_larger_than_any_is_not_read(tmp_path):
    with open(tmp_path / "test", "wb") as file:
        file.truncate(2**34)  # sparse: it takes no space
    with pytest.raises(ValueError, match=rf"^CIFAR100Dataset: a file must have at most {2**29} bytes, but \S+ has 171"):
        CIFAR100Dataset(tmp_path, False)
