"""Files of every reader with bytes changed, cut out, doubled: read rightly or refused by name, in little memory."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from needle.data import (
    CIFAR100Dataset,
    CSVDataset,
    EMNISTDataset,
    ImageFolderDataset,
    KMNISTDataset,
    MedMNISTDataset,
    NORBDataset,
    STL10Dataset,
    SVHNDataset,
    read_image,
)
from tests.data import test_cifar100, test_norb
from tests.data.test_files import listen, mangled
from tests.data.test_idx import idx_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
LABELS = np.array([1, 2, 3, 4, 1, 2], np.uint8)


def npz(save=np.savez_compressed, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def mat(compressed):
    file = io.BytesIO()
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 6), np.uint8)
    savemat(file, {"X": x, "y": LABELS[:, None]}, do_compression=compressed)
    return file.getvalue()


def picture(kind, **options):
    file = io.BytesIO()
    Image.fromarray(np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)).save(file, kind, **options)
    return file.getvalue()


MED = {"train_images": PIXELS, "train_labels": LABELS[:, None]}
STL = np.zeros((2, 3, 96, 96), np.uint8).tobytes()
CSV = "label,a,b,c,d\n" + "3,0,127,255,1\n" * 9
EMNIST = {
    "emnist-letters-train-images-idx3-ubyte": idx_bytes(PIXELS),
    "emnist-letters-train-labels-idx1-ubyte": idx_bytes(LABELS),
}
NORB = {
    f"{test_norb.TRAIN}-dat.mat": test_norb.norb_bytes(np.stack([PIXELS] * 2, 1)),
    f"{test_norb.TRAIN}-cat.mat": test_norb.norb_bytes(LABELS.astype(np.int32)),
}
KMNIST = {"kmnist-train-imgs.npz": npz(arr_0=PIXELS), "kmnist-train-labels.npz": npz(arr_0=LABELS)}
FOLDER = {"a/x.png": picture("PNG"), "b/x.jpg": picture("JPEG")}
# name: reader, its files, of which the first is mangled, the operation that errors name, and whether it has checksums
READERS = {
    "EMNIST": (lambda folder: EMNISTDataset(folder, "letters"), EMNIST, "(read_idx|EMNISTDataset)", False),
    "EMNIST's labels": (
        lambda folder: EMNISTDataset(folder, "letters"),
        dict(reversed(EMNIST.items())),
        "(read_idx|EMNISTDataset)",
        False,
    ),
    "EMNIST, gzipped": (
        lambda folder: EMNISTDataset(folder, "letters"),
        {f"{name}.gz": gzip.compress(content) for name, content in EMNIST.items()},
        "(read_idx|EMNISTDataset)",
        True,
    ),
    "KMNIST": (KMNISTDataset, KMNIST, "KMNISTDataset", True),
    "MedMNIST": (lambda folder: MedMNISTDataset(folder / "x"), {"x": npz(**MED)}, "MedMNISTDataset", True),
    "MedMNIST, stored": (
        lambda folder: MedMNISTDataset(folder / "x"), {"x": npz(np.savez, **MED)}, "MedMNISTDataset", True
    ),
    "CIFAR-100, pickled": (
        lambda folder: CIFAR100Dataset(folder, False), {"test": test_cifar100.python2()}, "CIFAR100Dataset", False
    ),
    "CIFAR-100, binary": (
        lambda folder: CIFAR100Dataset(folder, False), {"test.bin": test_cifar100.binary()}, "CIFAR100Dataset", False
    ),
    "SVHN, compressed": (SVHNDataset, {"train_32x32.mat": mat(True)}, "(read_mat|SVHNDataset)", True),
    "SVHN": (SVHNDataset, {"train_32x32.mat": mat(False)}, "(read_mat|SVHNDataset)", False),
    "STL-10": (STL10Dataset, {"train_X.bin": STL, "train_y.bin": b"\1\x0a"}, "STL10Dataset", False),
    "STL-10's labels": (STL10Dataset, {"train_y.bin": b"\1\x0a", "train_X.bin": STL}, "STL10Dataset", False),
    "NORB": (NORBDataset, NORB, "NORBDataset", False),
    "NORB's labels": (NORBDataset, dict(reversed(NORB.items())), "NORBDataset", False),
    "CSV": (lambda folder: CSVDataset(folder / "x", (1, 2, 2)), {"x": CSV.encode()}, "CSVDataset", False),
    "folder": (ImageFolderDataset, FOLDER, "(read_image|ImageFolderDataset)", False),
}  # fmt: skip


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("reader", "files", "op", "has_checksums"), READERS.values(), ids=READERS)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_mangled_file_is_read_rightly_or_refused_by_name(tmp_path, reader, files, op, has_checksums):
    random, (name, content) = np.random.default_rng(7), next(iter(files.items()))
    images, *labels = reader(written(tmp_path, files))[:]
    refused = []
    tracemalloc.start()
    for _ in range(30):
        changed = mangled(content, random)
        (tmp_path / name).write_bytes(changed)
        try:
            read = reader(tmp_path)[:]
        except ValueError as error:
            refused.append(str(error))
            continue
        if has_checksums:
            np.testing.assert_array_equal(read[0], images)
            np.testing.assert_array_equal(read[1], labels[0])
        assert len({len(field) for field in read}) == 1
        assert 0 <= read[0].min() <= read[0].max() <= 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(refused) > 5
    file = re.escape(name.split("/")[0])
    assert [text for text in refused if not re.match(rf"{op}: (?s:.*){file}", text) or ", but" not in text] == []
    assert peak < 2**23


@pytest.mark.parametrize(("reader", "files", "op", "has_checksums"), READERS.values(), ids=READERS)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, monkeypatch, reader, files, op, has_checksums):
    path = written(tmp_path, files) / next(iter(files))
    path.unlink()
    monkeypatch.chdir(tmp_path)  # `listen` changes it
    listen(path)
    with pytest.raises(OSError, match=rf"^{op}: path must be a regular file, but {re.escape(str(path))} is a socket$"):
        reader(tmp_path)[:]


PICTURES = {
    "png": picture("PNG"),
    "jpeg": picture("JPEG"),
    "progressive": picture("JPEG", progressive=True),
    "gif": picture("GIF"),
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
    "deflated": picture("TIFF", compression="tiff_adobe_deflate"),
    "webp": picture("WEBP", lossless=True),
    "ppm": picture("PPM"),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_mangled_picture_is_read_or_refused_by_name(tmp_path, content):
    random, path, refused = np.random.default_rng(3), tmp_path / "x", []
    for _ in range(30):
        path.write_bytes(mangled(content, random))
        try:
            image = read_image(path, size=8, channels=3)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert image.shape == (3, 8, 8)
            assert 0 <= image.min() <= image.max() <= 1
    assert len(refused) > 5
    rule = rf"read_image: a picture must .*, but {path} (is|has) "
    assert [text for text in refused if not re.match(rule, text)] == []


def test_an_archive_that_announces_much_takes_little_memory(tmp_path):
    """A header of 2**40 bytes, in a member of 8."""
    header = b"\x93NUMPY\1\0" + struct.pack("<H", 70)
    header += b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(69) + b"\n"
    written(tmp_path, KMNIST)
    tracemalloc.start()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "kmnist-train-imgs.npz", "w", method) as archive:
            archive.writestr("arr_0.npy", header + bytes(8))
        with pytest.raises(ValueError, match=r"^KMNISTDataset: path must be .* do not fit uint8 of shape \(10995"):
            KMNISTDataset(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
