"""CIFAR-10: both file formats, the dataset, invalid files, and malicious pickles."""

from __future__ import annotations

import pickle
import re
import struct
import sys

import numpy as np
import pytest

from needle.data import CIFAR10Dataset, ImageDataset, RandomCrop

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def images_of(count, seed=0):
    """Pixels (count, 3072) in the layout of the files, and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), np.uint8), random.integers(0, 10, count).tolist()


def python2_array(pixels, raw=None, code=b"u1", shape=None, fortran=False):
    """The opcodes of an array as Python 2 pickles it in protocol 2."""
    raw = pixels.tobytes() if raw is None else raw
    sizes = b"".join(b"J" + struct.pack("<i", size) for size in (pixels.shape if shape is None else shape))
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01(" + sizes + b"t"
        + b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if fortran else b"\x89")
        + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip


def python2_pickle(array, labels):
    """A batch as Python 2 pickles it: a dict with byte strings as keys."""
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return b"\x80\x02}(U\x0bbatch_labelU\x0ftesting batch 1U\x06labels](" + numbers + b"eU\x04data" + array + b"u."


def python2(pixels, labels):
    return python2_pickle(python2_array(pixels), labels)


def python3(protocol, kind):
    def content(pixels, labels):
        return pickle.dumps({kind("labels"): labels, kind("data"): pixels, kind("extra"): None}, protocol)

    return content


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))


FORMS = {
    "python 2": ("", python2),
    "python 3, protocol 2": ("", python3(2, str.encode)),
    "python 3, protocol 4": ("", python3(4, str.encode)),
    "string keys": ("", python3(2, str)),
    "binary": (".bin", binary),
}
FORM = pytest.mark.parametrize(("end", "write"), FORMS.values(), ids=FORMS)


def write_test(folder, content, end=""):
    (folder / f"test_batch{end}").write_bytes(content)
    return folder / f"test_batch{end}"


def test_the_pickle_written_here_is_what_python_reads():
    pixels, labels = images_of(3)
    read = pickle.loads(python2(pixels, labels), encoding="bytes")
    np.testing.assert_array_equal(read[b"data"], pixels)
    assert read[b"data"].dtype == np.uint8
    assert read[b"labels"] == labels


@FORM
def test_all_five_files_in_their_order(tmp_path, end, write):
    parts = [images_of(3, seed) for seed in range(5)]
    for name, part in zip(TRAIN, parts, strict=True):
        (tmp_path / (name + end)).write_bytes(write(*part))
    dataset = CIFAR10Dataset(tmp_path, train=True)
    pixels = np.concatenate([pixels for pixels, _ in parts])
    labels = [label for _, part in parts for label in part]
    assert isinstance(dataset, ImageDataset)
    assert len(dataset) == 15
    assert dataset.X.dtype == np.float32
    np.testing.assert_array_equal(dataset.X, (pixels / np.float32(255)).reshape(15, 3, 32, 32))
    assert dataset.y.tolist() == labels
    assert dataset.y.dtype == np.uint8


@FORM
@pytest.mark.parametrize("folder", ["", "below"])
def test_the_test_file_alone(tmp_path, end, write, folder):
    place = tmp_path / (f"cifar-10-batches-{'bin' if end else 'py'}" if folder else "")
    place.mkdir(exist_ok=True)
    pixels, labels = images_of(4)
    write_test(place, write(pixels, labels), end)
    dataset = CIFAR10Dataset(str(tmp_path), False)
    np.testing.assert_array_equal(dataset.X.reshape(4, 3072), pixels / np.float32(255))
    assert dataset.y.tolist() == labels


@pytest.fixture
def dataset_of(tmp_path):
    write_test(tmp_path, python2(*images_of(5)))
    return lambda **options: CIFAR10Dataset(tmp_path, train=False, **options)


def test_items_and_slices(dataset_of):
    dataset = dataset_of()
    for index in (0, 4, -1, np.int64(2)):
        item = dataset[index]
        assert isinstance(item, tuple)
        image, label = item
        assert type(image) is np.ndarray
        assert image.shape == (3, 32, 32)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, dataset.X[index])
        assert label == dataset.y[index]
    for index in (slice(1, 4), np.array([4, 0])):
        images, labels = dataset[index]
        np.testing.assert_array_equal(images, dataset.X[index])
        np.testing.assert_array_equal(labels, dataset.y[index])


def test_the_planes_of_colour_are_the_channels(tmp_path):
    pixels = np.repeat(np.array([10, 20, 30], np.uint8), 1024)
    pixels[1024 + 32 * 5 + 7] = 255
    write_test(tmp_path, python2(pixels[None], [1]))
    image, _ = CIFAR10Dataset(tmp_path, train=False)[0]
    assert image[1, 5, 7] == 1
    image[1, 5, 7] = np.float32(20 / 255)
    np.testing.assert_array_equal(image[:, 0, 0], np.array([10, 20, 30], np.float32) / 255)
    assert np.ptp(image.reshape(3, -1), axis=1).tolist() == [0, 0, 0]


def test_transforms_see_one_image_with_its_channels_last(dataset_of):
    seen = []

    def mirror(image):
        seen.append(image.shape)
        return image[:, ::-1]

    plain, mirrored = dataset_of(), dataset_of(transforms=[mirror, lambda image: image + 1])
    assert seen == []
    np.testing.assert_array_equal(mirrored[3][0], plain[3][0][:, :, ::-1] + 1)
    np.testing.assert_array_equal(mirrored.take([1, 2])[0], plain.X[1:3, :, :, ::-1] + 1)
    assert seen == [(32, 32, 3)] * 3
    assert dataset_of(transforms=[RandomCrop(4)])[0][0].shape == (3, 32, 32)


def test_p_has_no_effect(dataset_of):
    state = np.random.get_state()
    for p in (0, 1):
        np.testing.assert_array_equal(dataset_of(p=p, transforms=[lambda image: -image])[1][0], -dataset_of()[1][0])
    np.testing.assert_equal(np.random.get_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ((True, [RandomCrop(4)]), TypeError, "p must be a number (transforms follow it), but got list"),
        ((True, RandomCrop(4)), TypeError, "p must be a number (transforms follow it), but got RandomCrop"),
        ((True, 2), ValueError, "p must lie in [0, 1], but got 2"),
        (([RandomCrop(4)],), TypeError, "train must be a bool, but got list"),
        ((True, 0.5, RandomCrop(4)), TypeError, "transforms must be a list of callables, but got <needle.data."),
    ],
)
def test_arguments_in_the_wrong_place(tmp_path, options, error, message):
    for name in TRAIN:
        (tmp_path / name).write_bytes(python2(*images_of(1)))
    with pytest.raises(error, match=f"^CIFAR10Dataset: {re.escape(message)}"):
        CIFAR10Dataset(tmp_path, *options)


@FORM
def test_a_file_with_fewer_images_than_the_others_is_named(tmp_path, end, write):
    counts = [1, 3, 3, 3, 3]
    paths = [tmp_path / (name + end) for name in TRAIN]
    for path, count in zip(paths, counts, strict=True):
        path.write_bytes(write(*images_of(count)))
    found = ", ".join(f"{path} {count}" for path, count in zip(paths, counts, strict=True))
    message = f"CIFAR10Dataset: all files must hold the same number of images, but found {found}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CIFAR10Dataset(tmp_path, train=True)


@pytest.mark.parametrize("gone", [0, 4])
def test_the_error_for_a_missing_file_names_folder_and_source(tmp_path, gone):
    for name in TRAIN[:gone] + TRAIN[gone + 1 :]:
        (tmp_path / name).write_bytes(python2(*images_of(1)))
    name = TRAIN[gone]
    message = (
        f"CIFAR10Dataset: folder must hold one of {name}, {name}.bin, cifar-10-batches-py/{name}, "
        f"cifar-10-batches-bin/{name}.bin, but nothing of that name is in {tmp_path}; "
        "CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        CIFAR10Dataset(tmp_path, train=True)


def test_a_missing_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        f"but there is no such folder as {tmp_path / 'data' / 'cifar'}; CIFAR-10 is at https://www.cs.toronto.edu/"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        CIFAR10Dataset("data/cifar", train=False)


PIXELS, LABELS = images_of(2)
GOOD = python2(PIXELS, LABELS)
SHAPED = "data must be uint8 of shape (n, 3072), but {path} holds "
BROKEN = {
    "empty": (b"", "{path} must be a complete pickle of images, but: ValueError('pickle exhausted before"),
    "cut": (
        GOOD[:-3000],
        "{path} must be a complete pickle of images, but: ValueError('expected 6144 bytes in a string4, but",
    ),
    "no pickle": (b"\x1f\x8b\x08", "{path} must be a complete pickle of images, but: "),
    "no dict": (pickle.dumps([1], 2), "a pickle must hold a dict, but {path} holds a value of type list"),
    "no data": (
        pickle.dumps({"labels": [], "fine_labels": [], 3: 4}, 2),
        "the dict must have a key data, but {path} has fine_labels, labels",
    ),
    "no labels": (
        b"\x80\x02}U\x04data" + python2_array(PIXELS) + b"s.",
        "the dict must have a key labels, but {path} has data",
    ),
    "an empty dict": (pickle.dumps({}, 2), "the dict must have a key data, but {path} has no names"),
    "data in a list": (
        python2_pickle(b"](K\x01K\x02e", LABELS),
        "data must be an array, but {path} holds a value of type list",
    ),
    "an array without state": (
        python2_pickle(b"cnumpy.core.multiarray\n_reconstruct\n)R", LABELS),
        "data must be an array of bytes, but {path} holds none in its array",
    ),
    "an array of objects": (
        pickle.dumps({"data": np.array([[None] * 3072] * 2), "labels": LABELS}, 2),
        "data must be an array of bytes, but {path} holds none in its array",
    ),
    "a shape of strings": (
        pickle.dumps({"data": PIXELS, "labels": LABELS}, 2).replace(b"K\x02M\x00\x0c\x86", b"NM\x00\x0c\x86"),
        SHAPED + "type u1 and shape (3072,)",
    ),
    "type": (
        python2_pickle(python2_array(PIXELS, code=b"i1"), LABELS),
        SHAPED + "type i1 and shape (2, 3072)",
    ),
    "rank": (python2_pickle(python2_array(PIXELS, shape=(6144,)), LABELS), SHAPED + "type u1 and shape (6144,)"),
    "width": (
        python2_pickle(python2_array(PIXELS, shape=(6, 1024)), LABELS),
        SHAPED + "type u1 and shape (6, 1024)",
    ),
    "order": (
        python2_pickle(python2_array(PIXELS, fortran=True), LABELS),
        SHAPED + "type u1 and shape (2, 3072), in Fortran's order",
    ),
    "bytes": (
        python2_pickle(python2_array(PIXELS, raw=bytes(6143)), LABELS),
        "data of shape (2, 3072) must have 6144 bytes, but {path} has 6143",
    ),
    "a negative size": (
        python2_pickle(python2_array(PIXELS, shape=(-1, 3072)), LABELS),
        "data of shape (-1, 3072) must have -3072 bytes, but {path} has 6144",
    ),
    "no images": (python2(PIXELS[:0], []), "a file must hold at least one image, but {path} holds none"),
    "counts": (
        python2(PIXELS, [1, 2, 3]),
        "images and labels must agree in number, but {path} holds 2 images and 3 labels",
    ),
    "labels in an array": (
        pickle.dumps({"data": PIXELS, "labels": np.array(LABELS)}, 2),
        "labels must be a list, but {path} holds an array",
    ),
    "a label too high": (
        python2(PIXELS, [9, 10]),
        "labels must be integers in [0, 9], but label 1 of {path} is 10",
    ),
    "a label too low": (
        pickle.dumps({"data": PIXELS, "labels": [-1, 0]}, 2),
        "labels must be integers in [0, 9], but label 0 of {path} is -1",
    ),
    "a label in words": (
        pickle.dumps({"data": PIXELS, "labels": [0, "cat"]}, 2),
        "labels must be integers in [0, 9], but label 1 of {path} is a value of type str",
    ),
}
BROKEN_BINARY = {
    "empty": (b"", "a file must hold at least one image, but {path} holds none"),
    "cut": (
        binary(PIXELS, LABELS)[:-1],
        "a binary file must consist of records of 3073 bytes, but {path} has 6145 bytes, 3072 over",
    ),
    "label": (binary(PIXELS, [3, 255]), "labels must be integers in [0, 9], but label 1 of {path} is 255"),
}


@pytest.mark.parametrize(
    ("end", "content", "message"),
    [("", *row) for row in BROKEN.values()] + [(".bin", *row) for row in BROKEN_BINARY.values()],
    ids=[*BROKEN, *(f"binary, {name}" for name in BROKEN_BINARY)],
)
def test_a_wrong_file_is_named_with_what_it_holds(tmp_path, end, content, message):
    path = write_test(tmp_path, content, end)
    with pytest.raises(ValueError, match=f"^{re.escape('CIFAR10Dataset: ' + message.format(path=path))}"):
        CIFAR10Dataset(tmp_path, train=False)


def call(name, argument):
    """The opcodes that call a named function with one byte string."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"T" + struct.pack("<i", len(argument)) + argument + b"\x85R"


# Pickles that create the file `marker` when Python's own unpickler loads them, by the name that needle refuses.
HARM = {
    "os.system": lambda marker: call("os.system", b"touch " + marker),
    "posix.system": lambda marker: call("posix.system", b"touch " + marker),
    "builtins.eval": lambda marker: call("builtins.eval", b"open(b'" + marker + b"', 'w').close()"),
    "__builtin__.eval": lambda marker: call("__builtin__.eval", b"open(b'" + marker + b"', 'w').close()"),
    "builtins.exec": lambda marker: call("builtins.exec", b"open(b'" + marker + b"', 'w').close()"),
    "functools.partial": lambda marker: (
        b"cfunctools\npartial\n(cos\nsystem\nT" + struct.pack("<i", 6 + len(marker)) + b"touch " + marker + b"tR)R"
    ),
    "harm_by_import.anything": lambda marker: b"charm_by_import\nanything\n",
}
PLACES = {
    "alone": lambda harm: b"\x80\x02" + harm + b".",
    "as the data": lambda harm: python2_pickle(harm, LABELS),
    "in the dtype": lambda harm: GOOD.replace(b"U\x02u1", harm),
    "as a key": lambda harm: GOOD.replace(b"U\x0bbatch_label", harm),
    "after all else": lambda harm: GOOD[:-2] + b"U\x04more" + harm + b"u.",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HARM)
def test_a_malicious_pickle_runs_nothing(tmp_path, name, place):
    marker = tmp_path / "harmed"
    content = PLACES[place](HARM[name](str(marker).encode()))
    path = write_test(tmp_path, content)
    (tmp_path / "harm_by_import.py").write_text(f"open({str(marker)!r}, 'w').close()\nanything = dict")
    sys.path.insert(0, str(tmp_path))
    try:
        message = f'{path} must be a complete pickle of images, but: UnpicklingError("{name} is not a name that'
        with pytest.raises(ValueError, match=re.escape(message)):
            CIFAR10Dataset(tmp_path, train=False)
        assert not marker.exists()
        assert "harm_by_import" not in sys.modules
        if place == "alone":  # the test can fail: it does harm elsewhere
            pickle.loads(content, encoding="bytes")
            assert marker.exists()
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("harm_by_import", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "numpy.ndarray.__class__ is not a name"),
        (b"cnumpy\nload\n.", "numpy.load is not a name"),
        (b"c_codecs\nlookup\n.", "_codecs.lookup is not a name"),
        (b"c_codecs\nencode\n(U\x01aU\x04zlibtR.", "_codecs.encode must be called with latin1, but got b'zlib'"),
        (b"Psomewhere\n.", "persistent"),
    ],
)
def test_other_names_and_calls_are_refused(tmp_path, content, message):
    write_test(tmp_path, content)
    with pytest.raises(ValueError, match=re.escape(message)):
        CIFAR10Dataset(tmp_path, train=False)


@pytest.mark.parametrize(
    "name", ["numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "_codecs.encode"]
)
def test_a_pickle_cannot_change_how_the_next_one_is_read(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    opcode = f"c{module}\n{attribute}\n".encode()
    for state in (b"}X\x07\0\0\0__new__K\x01s", b"N}X\x07\0\0\0__new__K\x01s\x86", b"N}X\x05\0\0\0stateK\x01s\x86"):
        write_test(tmp_path, b"\x80\x02" + opcode + state + b"b.")
        with pytest.raises(ValueError, match="must be a complete pickle of images, but: TypeError"):
            CIFAR10Dataset(tmp_path, train=False)
        write_test(tmp_path, python3(2, str.encode)(PIXELS, LABELS))
        assert CIFAR10Dataset(tmp_path, train=False).y.tolist() == LABELS
