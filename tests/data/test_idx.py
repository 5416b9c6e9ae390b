"""IDX files: reading, finding them in a folder, the datasets, and every way a file can be invalid."""

from __future__ import annotations

import gzip
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from needle.data import DataLoader, EMNISTDataset, IDXDataset, MNISTDataset, idx_files, read_idx
from needle.data.binary import MappedArray
from needle.nn import functional as F

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5) * 4
LABELS = np.array([7, 0, 9], dtype=np.uint8)
SOURCE = (
    "MNIST is at https://ossci-datasets.s3.amazonaws.com/mnist/, "
    "Fashion-MNIST at https://github.com/zalandoresearch/fashion-mnist"
)


def idx_bytes(array):
    """An array as the content of an IDX file."""
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_set(folder, images=IMAGES, labels=LABELS, part="train"):
    """Write IDX files of images and labels under their standard names, and return their paths."""
    paths = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
    for path, array in zip(paths, (images, labels), strict=True):
        path.write_bytes(idx_bytes(array))
    return paths


@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    zipped=st.booleans(),
)
def test_reads_what_was_written(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "any-name"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    result = read_idx(path)
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.flags.writeable


def test_reads_a_file_by_hand(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes.fromhex("00000b02 00000002 00000001 0102 fffe"))
    assert read_idx(str(path)).tolist() == [[258], [-2]]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "t10k")])
def test_finds_the_standard_files(tmp_path, train, part, mark, zipped):
    names = [f"{part}-images{mark}idx3-ubyte", f"{part}-labels{mark}idx1-ubyte"]
    end = ".gz" if zipped else ""
    for name, array in zip(names, (IMAGES, LABELS), strict=True):
        (tmp_path / (name + end)).write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    dataset = IDXDataset(tmp_path, train)
    assert idx_files(tmp_path, train) == tuple(str(tmp_path / name) + end for name in names)
    images, labels = dataset.arrays
    assert images.shape == (3, 1, 4, 5)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.uint8


def test_pixels_are_divided_by_255(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    dataset = MNISTDataset(*write_set(tmp_path, every, LABELS[:1]))
    np.testing.assert_array_equal(dataset[0][0].ravel(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_mnist_items_and_slices(tmp_path):
    dataset = MNISTDataset(*write_set(tmp_path))
    image, label = dataset[2]
    assert image.shape == (4, 5, 1)
    assert image.dtype == np.float32
    assert label == 9
    assert len(dataset) == 3
    images, labels = dataset[1:3]
    np.testing.assert_array_equal(images, np.stack([dataset[1][0], dataset[2][0]]))
    np.testing.assert_array_equal(labels, [0, 9])


def test_mnist_transforms_see_the_image_at_each_access(tmp_path):
    seen = []

    def first(image):
        seen.append(image.shape)
        return image + 1

    dataset = MNISTDataset(*write_set(tmp_path), transforms=[first, lambda image: image * 10])
    assert not seen
    np.testing.assert_allclose(dataset[1][0].ravel(), (IMAGES[1].ravel() / 255 + 1) * 10, rtol=1e-6)
    dataset[0:2]
    assert seen == [(4, 5, 1)] * 3


QMNIST = np.array([[7, 1, 0, 0, 5, 0, 0, 0], [0, 2, 1, 9, 9, 9, 9, 9], [9, 3, 2, 300, -1, 70000, 0, 0]], dtype=np.int32)


@pytest.mark.parametrize("read", [lambda folder, paths: MNISTDataset(*paths), lambda folder, paths: IDXDataset(folder)])
def test_the_class_is_column_0_of_qmnists_labels(tmp_path, read):
    labels = read(tmp_path, write_set(tmp_path, labels=QMNIST)).arrays[1]
    assert labels.dtype == np.uint8
    assert labels.tolist() == [7, 0, 9]


@pytest.mark.parametrize("wrong", [-1, 256, 2**31 - 1])
def test_a_class_that_does_not_fit_is_named(tmp_path, wrong):
    labels = QMNIST.copy()
    labels[1:, 0] = wrong
    paths = write_set(tmp_path, labels=labels)
    message = f"MNISTDataset: labels must lie in [0, 255], but label 1 of {paths[1]} is {wrong}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MNISTDataset(*paths)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "test")])
def test_qmnist_by_its_file_names(tmp_path, train, part, zipped):
    for name, array in ((f"qmnist-{part}-images-idx3-ubyte", IMAGES), (f"qmnist-{part}-labels-idx2-int", QMNIST)):
        content = idx_bytes(array)
        (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    images, labels = IDXDataset(tmp_path, train)[:]
    np.testing.assert_array_equal(images, IMAGES[:, None] / np.float32(255))
    assert labels.tolist() == [7, 0, 9]


# ---- EMNIST ----------------------------------------------------------------------------------------------------------

SPLITS = {
    "balanced": (0, 46, "t"),
    "byclass": (0, 61, "z"),
    "bymerge": (0, 46, "t"),
    "digits": (0, 9, "9"),
    "letters": (1, 26, "z"),
    "mnist": (0, 9, "9"),
}
UPRIGHT = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)


def write_emnist(folder, split, part, labels, zipped=False):
    """The files of a split, whose images are transposed."""
    paths = []
    for kind, array in (("images-idx3", UPRIGHT.swapaxes(1, 2)), ("labels-idx1", np.array(labels, np.uint8))):
        content = idx_bytes(array)
        paths.append(folder / f"emnist-{split}-{part}-{kind}-ubyte{'.gz' * zipped}")
        paths[-1].write_bytes(gzip.compress(content) if zipped else content)
    return paths


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("split", "first", "last", "name"), [(split, *row) for split, row in SPLITS.items()])
def test_emnist_is_upright_and_its_labels_begin_at_0(tmp_path, split, first, last, name, zipped):
    train, part = (True, "train") if first else (False, "test")
    write_emnist(tmp_path, split, part, [last, first, first + 1, last], zipped)
    dataset = EMNISTDataset(tmp_path, split, train)
    ((images, labels),) = DataLoader(dataset, 4)
    np.testing.assert_array_equal(images.numpy(), UPRIGHT[:, None] / np.float32(255))
    count = len(dataset.classes)
    assert labels.numpy().tolist() == [count - 1, 0, 1, count - 1]
    assert dataset.classes[labels.numpy()[0]] == name
    assert count == last - first + 1
    logits = images.reshape((4, -1))[:, :count]
    assert F.cross_entropy(logits, labels).shape == ()
    assert isinstance(dataset.pixels, MappedArray) != zipped


def test_emnist_in_the_folder_that_the_archive_makes(tmp_path):
    (tmp_path / "gzip").mkdir()
    write_emnist(tmp_path / "gzip", "balanced", "train", [0] * 4, zipped=True)
    assert len(EMNISTDataset(tmp_path)) == 4


@pytest.mark.parametrize(
    ("split", "labels", "message"),
    [
        ("letters", [1, 2, 0, 3], "labels must lie in [1, 26], but label 2 of {labels} is 0"),
        ("letters", [1, 2, 27, 3], "labels must lie in [1, 26], but label 2 of {labels} is 27"),
        ("digits", [10, 0, 0, 0], "labels must lie in [0, 9], but label 0 of {labels} is 10"),
        ("digits", [1], "images and labels must agree in number, but {images} holds 4 and {labels} 1"),
        ("Letters", [1] * 4, "split must be one of 'balanced', 'byclass', 'bymerge', 'digits', 'letters', 'mnist', "),
    ],
)
def test_emnist_refuses_other_labels(tmp_path, split, labels, message):
    images, path = write_emnist(tmp_path, split, "train", labels)
    message = message.format(images=images, labels=path)
    with pytest.raises(ValueError, match=f"^EMNISTDataset: {re.escape(message)}"):
        EMNISTDataset(tmp_path, split)


def test_a_missing_file_of_emnist_is_named(tmp_path):
    message = r"^EMNISTDataset: folder must hold one of emnist-mnist-train-images-idx3-ubyte, .*; EMNIST is at https"
    with pytest.raises(FileNotFoundError, match=message):
        EMNISTDataset(tmp_path, "mnist")


# ---- broken files ----------------------------------------------------------------------------------------------------

GOOD = idx_bytes(IMAGES)
BROKEN = {
    "empty": (b"", "begins with nothing"),
    "short magic": (GOOD[:3], "begins with 00 00 08"),
    "no zeros": (b"\x89PNG" + GOOD, "begins with 89 50 4e 47"),
    "unknown type": (b"\0\0\x0a\x01" + GOOD[4:], "begins with 00 00 0a 01"),
    "short header": (GOOD[:9], r"a header of 3 dimensions must have 16 bytes, but {path} has 9"),
    "truncated": (
        GOOD[:-1],
        r"data of shape (3, 4, 5) and type uint8 must have 60 bytes, but {path} has 59",
    ),
    "trailing": (
        GOOD + b"\0\0",
        r"data of shape (3, 4, 5) and type uint8 must have 60 bytes, but {path} has 62",
    ),
    "huge": (
        b"\0\0\x0e\x02" + b"\xff" * 8,
        (
            r"data of shape (4294967295, 4294967295) and type float64 must have 147573952520956936200 bytes, "
            r"but {path} has 0"
        ),
    ),
    "too many dimensions": (
        b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"\5",
        f"NumPy must be able to hold shape {(1,) * 65} of {{path}}, but: maximum supported dimension",
    ),
    "cut gzip": (
        gzip.compress(GOOD)[:-9],
        "a gzipped file must be complete, but {path} is not: Compressed file ended before",
    ),
    "wrong gzip checksum": (
        gzip.compress(GOOD)[:-8] + bytes(8),
        "a gzipped file must be complete, but {path} is not: CRC check failed",
    ),
    "broken gzip": (
        gzip.compress(GOOD)[:10] + b"\xff" * 20,
        "a gzipped file must be complete, but {path} is not: Error",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_with_both_values(tmp_path, content, message):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message.format(path=path))) as caught:
        read_idx(path)
    assert str(caught.value).startswith("read_idx: ")
    assert str(path) in str(caught.value)


def test_the_error_for_a_wrong_magic_number_names_the_right_one(tmp_path):
    (tmp_path / "broken").write_bytes(b"PK\3\4")
    message = (
        "read_idx: the magic number must be 00 00, a type in 08, 09, 0b, 0c, 0d, 0e and the number of dimensions, "
        f"but {tmp_path / 'broken'} begins with 50 4b 03 04"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_idx(tmp_path / "broken")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nowhere"))):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize(("gone", "kind"), [("images", "idx3-ubyte"), ("labels", "idx1-ubyte")])
def test_the_error_for_a_missing_file_lists_the_expected_names(tmp_path, gone, kind):
    images, labels = write_set(tmp_path, part="t10k")
    (images if gone == "images" else labels).unlink()
    other = kind if gone == "images" else "idx2-int"
    message = (
        f"idx_files: folder must hold one of t10k-{gone}-{kind}, t10k-{gone}-{kind}.gz, t10k-{gone}.{kind}, "
        f"t10k-{gone}.{kind}.gz, qmnist-test-{gone}-{other}, qmnist-test-{gone}-{other}.gz, "
        f"qmnist-test-{gone}.{other}, qmnist-test-{gone}.{other}.gz, "
        f"but nothing of that name is in {tmp_path}; {SOURCE}"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        IDXDataset(tmp_path, train=False)


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("folder", ["here", "nowhere"])
def test_the_error_for_a_missing_mnist_file_names_folder_and_source(tmp_path, monkeypatch, gone, folder):
    """The message has the absolute path, since a wrong working directory is the usual reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    write_set(tmp_path / "here", part="t10k")[gone].unlink()
    names = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
    problem = "there is no such folder as" if folder == "nowhere" else "nothing of that name is in"
    name = names[0 if folder == "nowhere" else gone]
    message = f"MNISTDataset: folder must hold {name}, but {problem} {tmp_path / folder}; {SOURCE}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        MNISTDataset(*(f"{folder}/{name}" for name in names))


def test_the_path_of_a_file_is_no_folder(tmp_path):
    path = write_set(tmp_path)[0]
    message = f"but there is a file in place of a folder: {path}; {SOURCE}"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        IDXDataset(path)


def test_mnist_reads_files_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path)
    assert len(MNISTDataset("train-images-idx3-ubyte", "train-labels-idx1-ubyte")) == 3
    message = f"folder must hold there, but nothing of that name is in {tmp_path};"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        MNISTDataset("there", "train-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:2], "images and labels must agree in number, but {images} holds 3 and {labels} 2"),
        (
            IMAGES[:0],
            LABELS[:0],
            "there must be at least one image and pixel, but {images} has shape (0, 4, 5)",
        ),
        (
            IMAGES[:, :, :0],
            LABELS,
            "there must be at least one image and pixel, but {images} has shape (3, 4, 0)",
        ),
        (
            IMAGES,
            QMNIST[:, :7],
            "labels must be integers (N,) or (N, 1), but {labels} holds int32 of shape (3, 7)",
        ),
        (LABELS, LABELS, "images must be uint8 N x H x W, but {images} holds uint8 of shape (3,)"),
        (IMAGES, IMAGES, "labels must be integers (N,) or (N, 1), but {labels} holds uint8 of shape (3, 4, 5)"),
        (
            IMAGES.astype(np.float32),
            LABELS,
            "images must be uint8 N x H x W, but {images} holds float32 of shape (3, 4, 5)",
        ),
    ],
    ids=["counts", "no image", "no pixel", "not QMNIST's", "image rank", "label rank", "image type"],
)
@pytest.mark.parametrize("name", ["MNISTDataset", "IDXDataset"])
def test_images_and_labels_that_do_not_belong_together(tmp_path, name, images, labels, message):
    paths = write_set(tmp_path, images, labels)
    message = f"{name}: " + message.format(images=paths[0], labels=paths[1])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MNISTDataset(*paths) if name == "MNISTDataset" else IDXDataset(tmp_path)
