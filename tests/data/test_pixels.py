"""Datasets of bytes, in memory and mapped: items, batches, pickles, and what is refused."""

from __future__ import annotations

import io
import pickle
import re
import tracemalloc

import numpy as np
import pytest

from needle.data import DataLoader, ImageDataset, NDArrayDataset, PixelDataset, RandomCrop, Subset
from needle.data.binary import MappedArray, map_array
from needle.distributed.launch import Copies

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), np.uint8)
LABELS = np.arange(7, dtype=np.uint8)[::-1].copy()


def mapped(folder, pixels=PIXELS, start=3):
    path = folder / "pixels"
    path.write_bytes(bytes(start) + pixels.tobytes())
    return map_array("test", path, pixels.dtype, pixels.shape, start)


@pytest.fixture(params=["memory", "mapped", "view"])
def dataset(request, tmp_path):
    if request.param == "memory":
        return PixelDataset(PIXELS, LABELS)
    if request.param == "mapped":
        return PixelDataset(mapped(tmp_path), LABELS)
    return PixelDataset(mapped(tmp_path, PIXELS.transpose(0, 1, 3, 2).copy()).transpose(0, 1, 3, 2), LABELS)


def test_items_are_those_of_the_same_images_as_floats(dataset):
    floats = ImageDataset(PIXELS / np.float32(255), LABELS)
    assert isinstance(dataset, ImageDataset)
    assert len(dataset) == 7
    for index in (2, -1, np.int64(3), slice(1, 6, 2), [4, 4, 0], np.arange(7) % 2 == 0):
        for ours, theirs in zip(dataset[index], floats[index], strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=True)
            assert type(ours) is type(theirs)
    image, label = dataset[1]
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert isinstance(label, np.uint8)


def test_batches_of_a_loader(dataset):
    images, labels = zip(*DataLoader(dataset, 3, shuffle=True, seed=1), strict=True)
    order = np.concatenate([batch.numpy() for batch in labels])
    assert sorted(order.tolist()) == [*range(7)]
    result = np.concatenate([batch.numpy() for batch in images])
    np.testing.assert_array_equal(result, PIXELS[6 - order] / np.float32(255))


def test_transforms_see_one_image_with_its_channels_last(dataset):
    seen = []

    def double(image):
        seen.append(image.shape)
        return image * 2

    moved = dataset.with_transforms([double])
    np.testing.assert_array_equal(moved[:][0], PIXELS / np.float32(255) * 2)
    assert seen == [(4, 5, 3)] * 7
    (images, _), *_ = DataLoader(dataset.with_transforms([RandomCrop(1)]), 4)
    assert images.shape == (4, 3, 4, 5)


def test_volumes_and_several_classes_and_no_labels():
    volumes = PixelDataset(np.full((2, 1, 3, 4, 5), 51, np.uint8), np.eye(2, dtype=np.float32))
    image, label = volumes[1]
    np.testing.assert_array_equal(image, np.full((1, 3, 4, 5), np.float32(0.2)))
    assert label.tolist() == [0, 1]
    assert volumes.labels.shape == (2, 2)
    unlabelled = PixelDataset(PIXELS)
    assert unlabelled.labels is None
    ((batch,),) = DataLoader(unlabelled, 7)
    assert batch.shape == PIXELS.shape


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_holds_the_place_in_the_file_and_not_the_pixels(tmp_path, protocol):
    big = np.random.default_rng(1).integers(0, 256, (50, 3, 32, 32), np.uint8)
    records = mapped(tmp_path, big).transpose(0, 1, 3, 2)[10:, :, ::-1]
    content = pickle.dumps(Subset(PixelDataset(records, np.arange(40)), [3, 1]), protocol)
    assert len(content) < 3000
    part = pickle.loads(content)
    np.testing.assert_array_equal(part[:][0], big.transpose(0, 1, 3, 2)[[13, 11], :, ::-1] / np.float32(255))
    assert isinstance(part.dataset.pixels, MappedArray)
    in_memory = pickle.loads(pickle.dumps(mapped(tmp_path)[[2, 1]], protocol))  # chosen items are in memory
    np.testing.assert_array_equal(in_memory, PIXELS[[2, 1]])
    with open(tmp_path / "pixels", "ab") as file:
        file.write(b"1")
    with pytest.raises(ValueError, match=rf"^MappedArray: data of shape \({3 + big.size},\) .* but \S+/pixels has "):
        pickle.loads(content)
    (tmp_path / "pixels").unlink()
    with pytest.raises(FileNotFoundError, match=r"^MappedArray: path must .* can be read, but \S+/pixels: No such"):
        pickle.loads(content)


def test_a_mapped_file_takes_no_memory(tmp_path):
    with open(tmp_path / "pixels", "wb") as file:
        file.truncate(2**30)  # sparse: it takes no space
    tracemalloc.start()
    dataset = PixelDataset(map_array("test", tmp_path / "pixels", np.uint8, (2**20, 1, 32, 32)), np.zeros(2**20, "u1"))
    images, _ = dataset.take([5, 2**20 - 1])
    assert not images.any()
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_the_bytes_of_a_mapped_dataset_in_another_one(tmp_path):
    dataset = NDArrayDataset(mapped(tmp_path), LABELS)
    pixels, _ = dataset[2:4]
    np.testing.assert_array_equal(pixels, PIXELS[2:4], strict=True)
    assert type(pixels) is np.ndarray
    pixels[:] = 0  # it is a copy
    big = np.zeros((100, 1, 64, 64), np.uint8)
    assert len(pickle.dumps(NDArrayDataset(mapped(tmp_path, big)))) < 2000


def test_an_empty_map(tmp_path):
    (tmp_path / "pixels").write_bytes(b"abc")
    assert map_array("test", tmp_path / "pixels", np.uint8, (0, 2), 3).shape == (0, 2)


LABELS_RULE = "PixelDataset: labels must be integers (N,), or floats (N, K) for several classes, but got "


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((PIXELS / 255,), TypeError, "PixelDataset: pixels must be uint8, but got float64"),
        (
            (PIXELS[:, 0], LABELS),
            ValueError,
            "PixelDataset: pixels must be N x C x H x W, or N x C x D x H x W, but got shape (7, 4, 5)",
        ),
        (
            (PIXELS, LABELS[:, None]),
            TypeError,
            LABELS_RULE + "uint8 of shape (7, 1)",
        ),
        (
            (PIXELS, LABELS / 2),
            TypeError,
            LABELS_RULE + "float64 of shape (7,)",
        ),
        ((PIXELS, LABELS[1:]), ValueError, "NDArrayDataset: arrays must agree in length, but got shapes "),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        PixelDataset(*arguments)


def test_volumes_take_no_transforms():
    with pytest.raises(ValueError, match=r"^ImageDataset: images must be N x C x H x W, but got shape \(1, 1, 2, 2"):
        PixelDataset(np.zeros((1, 1, 2, 2, 2), np.uint8), transforms=[RandomCrop(1)])


def test_workers_of_fit_can_copy_it(tmp_path):
    file = io.BytesIO()
    Copies("fit", file).dump(DataLoader(PixelDataset(mapped(tmp_path), LABELS), 3))
    loader = pickle.loads(file.getvalue())
    assert [images.shape for images, _ in loader] == [(3, 3, 4, 5), (3, 3, 4, 5), (1, 3, 4, 5)]
