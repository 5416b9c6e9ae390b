"""Files that are not what they should be: no regular file, unreadable, announcing more than they hold, mangled."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import socket
import struct
import tracemalloc

import numpy as np
import pytest

from needle import files
from needle.data import CIFAR10Dataset, Corpus, IDXDataset, MNISTDataset, read_idx

IDX = bytes.fromhex("00000802 00000002 00000003 010203040506")
PICKLED = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [3, 4]}, 2)
NAMES = {
    read_idx: "images",
    CIFAR10Dataset: "test_batch",
    IDXDataset: "train-images-idx3-ubyte",
    MNISTDataset: "train-images-idx3-ubyte",
    Corpus: "train.txt",
}
READERS = {
    read_idx: lambda folder: read_idx(folder / "images"),
    CIFAR10Dataset: lambda folder: CIFAR10Dataset(folder, train=False),
    IDXDataset: IDXDataset,
    MNISTDataset: lambda folder: MNISTDataset(folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"),
    Corpus: Corpus,
}
READER = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of each reader."""
    for name, content in {
        "images": IDX,
        "test_batch": PICKLED,
        "train-images-idx3-ubyte": b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 1) + IDX[-6:],
        "train-labels-idx1-ubyte": b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\5\6",
        "train.txt": "größe of a word\n".encode(),
        "test.txt": b"a word\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


# ---- no regular file -------------------------------------------------------------------------------------------------


def listen(path):
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the whole path may be too long for a socket
        server.bind(path.name)


NO_FILE = pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkdir, "a folder"),
        (os.mkfifo, "a FIFO"),
        (listen, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
    ids=["folder", "FIFO", "socket", "device"],
)


@READER
@NO_FILE
def test_what_is_no_file_is_named_and_neither_read_nor_waited_for(folder, monkeypatch, reader, make, kind):
    monkeypatch.chdir(folder)
    path = folder / NAMES[reader]
    path.unlink()
    make(path)
    with pytest.raises(OSError, match=f": path must be a regular file, but {path} is {kind}$"):
        READERS[reader](folder)


@READER
def test_a_file_that_may_not_be_read(folder, monkeypatch, reader):
    """The error of the system keeps its class, and no file is called broken."""

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "open", refuse, raising=False)
    message = f": path must be a file that can be read, but {folder / NAMES[reader]}: Permission denied$"
    with pytest.raises(PermissionError, match=message):
        READERS[reader](folder)


@READER
def test_an_error_while_reading_keeps_its_reason(folder, monkeypatch, reader):
    class Broken:
        def __enter__(self):
            raise OSError(5, "Input/output error")

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(files, "open", lambda path, mode: Broken(), raising=False)
    with pytest.raises(OSError, match=r": path must be a file that can be read, but .*: Input/output error$"):
        READERS[reader](folder)


@pytest.mark.parametrize("reader", [CIFAR10Dataset, IDXDataset, Corpus], ids=lambda reader: reader.__name__)
def test_a_folder_that_may_not_be_searched(tmp_path, monkeypatch, reader):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files.os, "stat", refuse)
    monkeypatch.setattr(files.os.path, "isfile", lambda path: False)
    message = f"folder must hold .*, but there is no permission to search {tmp_path}; "
    with pytest.raises(PermissionError, match=message):
        READERS[reader](tmp_path)


def test_a_dangling_link(folder):
    (folder / "images").unlink()
    (folder / "images").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=f"but {folder / 'images'}: No such file or directory$"):
        read_idx(folder / "images")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: read_idx(0), TypeError, "read_idx: path must be a path, but got int"),
        (lambda: Corpus(None), TypeError, "Corpus: folder must be a path, but got NoneType"),
        (lambda: CIFAR10Dataset(3, train=True), TypeError, "CIFAR10Dataset: folder must be a path, but got int"),
        (lambda: IDXDataset([]), TypeError, "idx_files: folder must be a path, but got list"),
        (lambda: MNISTDataset(1, "x"), TypeError, "MNISTDataset: image_filename must be a path, but got int"),
        (lambda: read_idx("a\0b"), ValueError, r"read_idx: path must be a name that a file can have, but got 'a\x00b'"),
    ],
)
def test_what_is_no_path(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()


# ---- small files that announce much ----------------------------------------------------------------------------------

MUCH = 2**32
PICKLES = {
    "bytes8": b"\x80\x04\x8e" + struct.pack("<Q", MUCH),
    "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", MUCH),
    "text8": b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
    "bytes4": b"\x80\x03B" + struct.pack("<I", MUCH - 1),
    "text4": b"\x80\x02X" + struct.pack("<I", MUCH - 1),
    "string4": b"\x80\x02T" + struct.pack("<i", 2**31 - 1),
    "frame": b"\x80\x04\x95" + struct.pack("<Q", MUCH) + b"N.",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1),
    "memo": b"\x80\x02Nr" + struct.pack("<I", MUCH - 1) + b".",
    "memo, as text": b"Np4294967295\n.",
    "objects": b"\x80\x02(" + b"]" * 200_000 + b"l.",
    "one text, many times": (
        b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00c_codecs\nencode\nq\x01U\x06latin1q\x02"
        + b"h\x01h\x00h\x02\x86R" * 2000 + b"."
    ),
}  # fmt: skip


def peak_of(message, call, *arguments):
    """The most bytes that Python and NumPy held at a time during the call, which must raise ValueError."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            call(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_a_small_pickle_takes_little_memory(tmp_path, content):
    (tmp_path / "test_batch").write_bytes(content)
    message = "^CIFAR10Dataset: (.* must be a complete pickle of images, but: |a pickle must hold a dict, but )"
    assert peak_of(message, CIFAR10Dataset, tmp_path, False) < 3 * len(content) + 2**20


@pytest.mark.parametrize("end", ["", ".bin"])
def test_a_file_larger_than_any_of_cifar_is_not_read(tmp_path, end):
    with open(tmp_path / f"test_batch{end}", "wb") as file:
        file.truncate(2**34)  # sparse: it takes no space
    message = rf"^CIFAR10Dataset: a file must have at most {2**27} bytes, but .*/test_batch{end} has {2**34}$"
    assert peak_of(message, CIFAR10Dataset, tmp_path, False) < 2**20


@pytest.mark.parametrize(
    ("announced", "held"), [(5, 2**24), (MUCH - 1, 5), (2**22, 2**24)], ids=["a bomb", "a boast", "both"]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_takes_no_more_than_it_announces_and_holds(tmp_path, announced, held, zipped):
    path = tmp_path / "file"
    header = b"\0\0\x08\x01" + struct.pack(">I", announced)
    if zipped:
        path.write_bytes(gzip.compress(header + bytes(held), 1))
    else:
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(8 + held)
    found = "more" if zipped and held > announced else held
    message = rf"data of shape \({announced},\) and type uint8 must have {announced} bytes, but {path} has {found}$"
    assert peak_of(f"^read_idx: {message}", read_idx, path) < 1.5 * min(announced, held) + 2**21


# ---- mangled files ---------------------------------------------------------------------------------------------------


def mangled(content, random):
    """The content with some of its bytes changed, cut out, doubled or set to the ends of their range."""
    result = bytearray(content)
    for _ in range(random.integers(1, 4)):
        position = int(random.integers(len(result) + 1)) if random.random() < 0.5 else int(random.integers(40))
        match random.integers(5):
            case 0:
                del result[position:]
            case 1:
                result[position : position + 1] = random.bytes(1)
            case 2:
                result[position : position + 8] = random.choice([b"\0", b"\xff", b"\x7f"]) * int(random.integers(1, 9))
            case 3:
                del result[position : position + int(random.integers(1, 9))]
            case 4:
                result[position:position] = result[: int(random.integers(1, 99))]
    return bytes(result)


TEXT = b"".join(b"the cat sat on mat %d \n" % number for number in range(20)) + "größe\n".encode()
READ = {
    "idx": ("images", IDX, read_idx),
    "gzipped idx": ("images", gzip.compress(IDX), read_idx),
    "a pair of idx files": ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\2\5\6", IDXDataset),
    "pickle 0": ("test_batch", pickle.dumps(pickle.loads(PICKLED), 0), CIFAR10Dataset),
    "pickle 2": ("test_batch", PICKLED, CIFAR10Dataset),
    "pickle 4": ("test_batch", pickle.dumps(pickle.loads(PICKLED), 4), CIFAR10Dataset),
    "binary": ("test_batch.bin", (b"\5" + bytes(3072)) * 2, CIFAR10Dataset),
    "text": ("train.txt", TEXT, Corpus),
}


@pytest.mark.parametrize(("name", "content", "reader"), READ.values(), ids=READ)
def test_a_mangled_file_is_read_or_refused_in_needles_words(folder, name, content, reader):
    random = np.random.default_rng(5)
    messages = []
    for path in folder.glob("test_batch*"):
        path.unlink()
    tracemalloc.start()
    for _ in range(50):
        (folder / name).write_bytes(mangled(content, random))
        try:
            READERS[reader](folder)
        except (ValueError, OSError) as error:
            messages.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(messages) > 5
    assert [text for text in messages if not re.match(rf"(read_idx|{reader.__name__}): .*, but", text, re.DOTALL)] == []
    assert peak < 2**23
