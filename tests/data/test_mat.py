"""MATLAB's files, written by scipy and by hand, and SVHN in them."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from needle.data import DataLoader, SVHNDataset, read_mat
from tests.data.test_files import peak_of

X = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 11), np.uint8)
Y = np.array([[10], [1], [2], [3], [4], [5], [6], [7], [8], [9], [10]], np.uint8)
COMPRESSED = pytest.mark.parametrize("compressed", [True, False])
KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def written(compressed, **arrays):
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


def element(kind, content, order="<"):
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def by_hand(order="<", stored=2, klass=6, shape=(2, 3), values=bytes(range(6)), name=b"y", small=False):
    """A file with one matrix, as MATLAB writes it: doubles that are small integers are stored as bytes."""
    text = element(1, name, order)
    if small:
        words = struct.pack(order + "I", len(name) << 16 | 1)
        text = words + name.ljust(4, b"\0")
    matrix = (
        element(6, struct.pack(order + "II", klass, 0), order)
        + element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
        + text
        + element(stored, values, order)
    )
    mark = {"<": b"\0\1IM", ">": b"\1\0MI"}[order]
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark + element(14, matrix, order)


@COMPRESSED
def test_arrays_that_scipy_writes(tmp_path, compressed):
    arrays = {f"a{kind}": np.arange(24, dtype=kind).reshape(2, 3, 4) for kind in KINDS}
    arrays |= {"one": np.array([[7]], "u1"), "row": np.arange(5.0)[None], "none": np.zeros((0, 3)), "Fortran": X}
    others = {"text": "hello", "cell": np.array([[1], "a"], object), "struct": {"x": 1.0}, "z": np.array([[1j]])}
    (tmp_path / "x.mat").write_bytes(written(compressed, **others, **arrays))
    for name, array in arrays.items():
        read = read_mat(tmp_path / "x.mat", name)
        np.testing.assert_array_equal(read, array, strict=True)
        assert read.flags.writeable
    for name in others:
        with pytest.raises(ValueError, match=rf"^read_mat: path must .* but \S+ holds {name} of flags 0x"):
            read_mat(tmp_path / "x.mat", name)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("small", [True, False])
def test_a_matrix_by_hand(tmp_path, order, small):
    (tmp_path / "x.mat").write_bytes(by_hand(order, small=small))
    expected = np.array([[0, 2, 4], [1, 3, 5]], np.uint8)
    np.testing.assert_array_equal(read_mat(tmp_path / "x.mat", "y"), expected, strict=True)
    wide = struct.pack(f"{order}6h", *range(-2, 4))
    (tmp_path / "x.mat").write_bytes(by_hand(order, 3, values=wide, small=small))
    np.testing.assert_array_equal(read_mat(tmp_path / "x.mat", "y"), expected.astype(np.int16) - 2, strict=True)


@COMPRESSED
@pytest.mark.parametrize("split", ["train", "test", "extra"])
def test_svhn(tmp_path, compressed, split):
    (tmp_path / f"{split}_32x32.mat").write_bytes(written(compressed, X=X, y=Y))
    dataset = SVHNDataset(tmp_path, split)
    ((images, labels),) = DataLoader(dataset, 11)
    assert labels.numpy().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert labels.dtype == np.uint8
    for number in range(11):
        np.testing.assert_array_equal(images.numpy()[number].transpose(1, 2, 0), X[..., number] / np.float32(255))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Y}, "read_mat: path must be a whole MATLAB 5 file with X, but {} holds the arrays ['y']"),
        ({"X": X.astype(float), "y": Y}, "images must be uint8 32 x 32 x 3 x N, but {} holds float64 of shape (32, 32"),
        ({"X": X.T, "y": Y}, "images must be uint8 32 x 32 x 3 x N, but {} holds uint8 of shape (11, 3, 32, 32)"),
        ({"X": X, "y": Y[1:]}, "images and labels must agree in number, but {0} holds 11 and {0} 10"),
        ({"X": X, "y": Y - 1}, "labels must lie in [1, 10], but label 1 of {} is 0"),
        ({"X": X, "y": Y + 0.5}, "labels must be integers (N,) or (N, 1), but {} holds float64 of shape (11, 1)"),
    ],
)
def test_svhn_with_other_arrays(tmp_path, arrays, message):
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(written(True, **arrays))
    message = message if message.startswith("read_mat") else f"SVHNDataset: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(path))}"):
        SVHNDataset(tmp_path)


def test_options_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"^SVHNDataset: split must be one of 'train', 'test', 'extra', but got 'a'$"):
        SVHNDataset(tmp_path, "a")
    with pytest.raises(FileNotFoundError, match=r"^SVHNDataset: folder must hold test_32x32\.mat, but nothing "):
        SVHNDataset(tmp_path, "test")


def packed(content):
    """A file with a compressed element."""
    data = zlib.compress(content)
    return by_hand()[:128] + struct.pack("<II", 15, len(data)) + data


GOOD = by_hand()
MATRIX = GOOD[128:]
BROKEN = {
    "empty": (b"", r"begins with b'', no header of 128 bytes"),
    "short": (GOOD[:127], "begins with b'MATLAB 5.0 MAT-f', no header of 128 bytes"),
    "HDF5": (GOOD[:124] + b"\0\2IM" + GOOD[128:], "is of version 0x200, HDF5, which h5py reads"),
    "version": (GOOD[:124] + b"\0\3IM" + GOOD[128:], "is of version 0x300"),
    "cut": (GOOD[:-1], "announces 64 bytes at byte 128, and holds 63"),
    "no tag": (GOOD[:130], "holds 2 bytes where an array announces 8"),
    "huge": (GOOD[:132] + b"\xff" * 4 + GOOD[136:], "announces 4294967295 bytes at byte 128, and holds 64"),
    "longer than its element": (
        GOOD[:132] + struct.pack("<I", 56) + GOOD[136:] + MATRIX, "announces 56 bytes at byte 128 for y, which has 62"
    ),
    "none": (GOOD[:128], "holds the arrays []"),
    "another": (by_hand(name=b"abc"), "holds the arrays ['abc']"),
    "no flags": (GOOD[:128] + element(14, element(6, b"") * 9), "has a matrix with 0 bytes of flags and 0 of sizes"),
    "long name": (by_hand(name=b"y" * 2000), "announces 2000 bytes for a name or sizes, more than 1024"),
    "small": (
        GOOD[:128] + element(14, struct.pack("<I", 5 << 16 | 6) + bytes(20)),
        "announces 5 bytes in an element of 4",
    ),
    "class": (by_hand(klass=4), "holds y of flags 0x4 and shape (2, 3), no real numbers"),
    "complex": (by_hand(klass=0x806), "holds y of flags 0x806 and shape (2, 3), no real numbers"),
    "axes": (by_hand(shape=(1,) * 33), f"holds y of flags 0x6 and shape {(1,) * 33}, no real numbers"),
    "type": (by_hand(stored=17), "holds y with values of type 17, no numbers"),
    "shape": (by_hand(shape=(2, 4)), "announces 6 bytes for y of shape (2, 4) and type uint8"),
    "negative": (by_hand(shape=(-2, -3)), "announces 6 bytes for y of shape (-2, -3) and type uint8"),
    "no zlib": (packed(b"")[:136] + b"abcdefgh", "holds a broken array: Error -3 while decompressing"),
    "cut zlib": (
        GOOD[:128] + struct.pack("<II", 15, 20) + packed(MATRIX)[136:156], "ends within a compressed array"
    ),
    "zlib": (
        packed(MATRIX)[:-1] + b"\0", "holds a broken array: Error -3 while decompressing data: incorrect data check"
    ),
    "more": (packed(MATRIX + bytes(8)), "holds 8 bytes after the values of y"),
    "less": (packed(MATRIX[:-3]), "holds 5 bytes where an array announces 6"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "x.mat"
    path.write_bytes(content)
    message = f"read_mat: path must be a whole MATLAB 5 file with y, but {path} {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_mat(path, "y")


@COMPRESSED
def test_a_small_file_that_announces_much(tmp_path, compressed):
    header = by_hand(shape=(2**15, 2**15), values=b"")[136:-8] + struct.pack("<II", 2, 2**30)
    content = struct.pack("<II", 14, len(header)) + header
    (tmp_path / "x.mat").write_bytes(packed(content) if compressed else by_hand()[:128] + content)
    assert peak_of("holds 0 bytes where an array announces 1073741824$", read_mat, tmp_path / "x.mat", "y") < 2**21
