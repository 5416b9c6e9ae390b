"""The digits that ship with the package."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from needle.data import DigitsDataset, IDXDataset, RandomCrop, RandomFlipHorizontal


@pytest.mark.parametrize(("train", "count"), [(True, 1442), (False, 355)])
def test_images_and_labels(train, count):
    dataset = DigitsDataset(train)
    images, labels = dataset.arrays
    assert images.shape == (count, 1, 8, 8)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert set((images * 16).ravel().tolist()) == set(range(17))
    assert labels.shape == (count,)
    assert labels.dtype == np.uint8
    assert len(dataset) == count
    assert dataset[0][0].shape == (1, 8, 8)


def test_each_class_is_split_four_to_one():
    train, test = (np.bincount(DigitsDataset(part)[:][1], minlength=10) for part in (True, False))
    np.testing.assert_array_equal(test, (train + test) // 5)
    np.testing.assert_array_equal(train + test, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_train_and_test_share_no_image():
    train, test = ({image.tobytes() for image in DigitsDataset(part).arrays[0]} for part in (True, False))
    assert len(train) == 1442
    assert len(test) == 355
    assert not train & test


def test_the_split_is_fixed():
    digest = hashlib.sha256()
    for part in (True, False):
        images, labels = DigitsDataset(part).arrays
        digest.update((images * 16).astype(np.uint8).tobytes() + labels.tobytes())
    assert digest.hexdigest() == "eb16a5b9fcc31197ecd8be8456b687084ffc10eb4cc2efbd406de3cc793713c8"


def test_nearest_neighbor_reads_the_held_out_digits():
    (train_images, train_labels), (images, labels) = (DigitsDataset(part).arrays for part in (True, False))
    scores = images.reshape(355, 64) @ train_images.reshape(1442, 64).T - (train_images**2).sum(axis=(1, 2, 3)) / 2
    assert np.mean(train_labels[scores.argmax(axis=1)] == labels) > 0.97


def test_transforms_see_an_image_with_its_channels_last():
    seen = []

    def flip(image):
        seen.append(image.shape)
        return image[:, ::-1]

    plain, flipped = DigitsDataset(train=False), DigitsDataset(train=False, transforms=[flip])
    assert seen == []
    np.testing.assert_array_equal(flipped[3][0], plain[3][0][:, :, ::-1])
    assert flipped[3][1] == plain[3][1]
    batch, labels = flipped.take([0, 5])
    np.testing.assert_array_equal(batch, plain.arrays[0][[0, 5], :, :, ::-1])
    np.testing.assert_array_equal(labels, plain.arrays[1][[0, 5]])
    assert seen == [(8, 8, 1)] * 4


def test_the_transforms_of_the_package_fit():
    images, _ = DigitsDataset(transforms=[RandomCrop(1), RandomFlipHorizontal()]).take(range(4))
    assert images.shape == (4, 1, 8, 8)
    assert images.dtype == "float32"


@pytest.mark.parametrize("kind", [DigitsDataset, lambda train: IDXDataset("nowhere", train)], ids=["digits", "idx"])
@pytest.mark.parametrize("train", [[RandomCrop(1)], "test", 0, None])
def test_the_set_is_chosen_by_a_bool(kind, train):
    """A list of transforms in its place would be true: the training set, without transforms."""
    message = rf"^(DigitsDataset|idx_files): train must be a bool, but got {type(train).__name__}$"
    with pytest.raises(TypeError, match=message):
        kind(train)
