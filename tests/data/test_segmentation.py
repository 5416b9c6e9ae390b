"""Images with masks: moved together, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from needle.data import Compose, DataLoader, Normalize, RandomCrop, RandomFlipHorizontal, SegmentationDataset


@pytest.fixture
def images():
    """Images whose channels are noise above 0, so that masks can be told from them."""
    return np.random.default_rng(0).uniform(1, 2, (6, 2, 7, 5)).astype(np.float32)


@pytest.fixture
def masks(images):
    return (images[:, 0] * 100).astype(np.int32)


def test_items_are_an_image_and_its_mask(images, masks):
    dataset = SegmentationDataset(images, masks)
    image, mask = dataset[2]
    np.testing.assert_array_equal(image, images[2], strict=True)
    np.testing.assert_array_equal(mask, masks[2], strict=True)
    (batch,) = DataLoader(dataset, 6)
    assert [field.shape for field in batch] == [(6, 2, 7, 5), (6, 7, 5)]
    assert batch[1].dtype == "int32"


@pytest.mark.parametrize("wrapped", [list, lambda transforms: [Compose(transforms)]], ids=["list", "composed"])
def test_transforms_move_both_by_the_same_draws(images, masks, wrapped):
    transforms = [RandomFlipHorizontal(), RandomCrop(3), Normalize(0, [1, 5])]
    dataset = SegmentationDataset(images, masks, transforms=wrapped(transforms))
    np.random.seed(0)
    moved, moved_masks = dataset[:]
    np.testing.assert_array_equal(moved_masks, (moved[:, 0] * 100).astype(np.int32), strict=True)
    assert not np.array_equal(moved_masks, masks)
    np.random.seed(0)
    item = dataset[0]
    np.testing.assert_array_equal(item[0], moved[0])
    np.testing.assert_array_equal(item[1], moved_masks[0])


def test_without_transforms_for_validation(images, masks):
    dataset = SegmentationDataset(images, masks, transforms=[RandomCrop(3)]).with_transforms(None)
    np.testing.assert_array_equal(dataset[:][1], masks)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda images, masks: SegmentationDataset(images, masks[:, None]),
            "images must be N x C x H x W and masks N x H x W, but got shapes [(6, 2, 7, 5), (6, 1, 7, 5)]",
        ),
        (
            lambda images, masks: SegmentationDataset(images[:, 0], masks),
            "images must be N x C x H x W and masks N x H x W, but got shapes [(6, 7, 5), (6, 7, 5)]",
        ),
        (
            lambda images, masks: SegmentationDataset(images, masks, transforms=[lambda x, y: x])[0],
            "transforms must return an image H x W x C and its mask, but got shapes [(7, 5, 2)]",
        ),
        (
            lambda images, masks: SegmentationDataset(images, masks, transforms=[lambda x, y: (x[1:], y)])[0],
            "transforms must return an image H x W x C and its mask, but got shapes [(6, 5, 2), (7, 5)]",
        ),
    ],
)
def test_errors(images, masks, call, message):
    with pytest.raises(ValueError, match=f"^SegmentationDataset: {re.escape(message)}$"):
        call(images, masks)
