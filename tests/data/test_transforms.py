"""Transforms of images: their results, and their draws from NumPy's global generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from needle.data import Compose, ImageDataset, Normalize, RandomCrop, RandomFlipHorizontal


def image_of(height, width, channels=1):
    return np.arange(1, height * width * channels + 1, dtype=np.float32).reshape(height, width, channels)


@given(seed=st.integers(0, 2**32 - 1), p=st.floats(0, 1))
def test_flip_takes_one_draw_and_flips_below_p(seed, p):
    image = image_of(2, 3, 2)
    np.random.seed(seed)
    draw, after = np.random.rand(), np.random.rand()
    np.random.seed(seed)
    flipped = RandomFlipHorizontal(p)(image)
    np.testing.assert_array_equal(flipped, np.flip(image, axis=1) if draw < p else image)
    assert np.random.rand() == after


def test_a_draw_of_p_itself_does_not_flip():
    images = np.arange(6).reshape(1, 3, 1, 2)
    for p, flipped in ((0.0, images), (0.5, images), (np.nextafter(0.5, 1), images[..., ::-1])):
        np.testing.assert_array_equal(RandomFlipHorizontal(p).compute(images, np.full((1, 1), min(p, 0.5))), flipped)


def test_flip_by_default_flips_half():
    image = image_of(1, 2)
    flip = RandomFlipHorizontal()
    assert 420 < sum(flip(image)[0, 0, 0] == 2 for _ in range(1000)) < 580


@given(
    seed=st.integers(0, 2**32 - 1),
    padding=st.integers(0, 6),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
)
def test_crop_shifts_by_one_draw_of_two(seed, padding, shape):
    image = image_of(*shape)
    np.random.seed(seed)
    shift, after = np.random.randint(low=-padding, high=padding + 1, size=2), np.random.rand()
    np.random.seed(seed)
    cropped = RandomCrop(padding)(image)
    assert np.random.rand() == after
    assert cropped.shape == image.shape
    assert cropped.dtype == image.dtype
    for row, column in np.ndindex(shape[:2]):
        source = (row + shift[0], column + shift[1])
        inside = 0 <= source[0] < shape[0] and 0 <= source[1] < shape[1]
        np.testing.assert_array_equal(cropped[row, column], image[source] if inside else 0)


def test_crop_pads_three_by_default():
    crop = RandomCrop()
    shifts = {int(crop(image_of(9, 1))[4, 0, 0]) for _ in range(200)}
    assert shifts - {0} == set(range(2, 9))


# ---- images with masks -----------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    padding=st.integers(0, 4),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
)
def test_one_draw_moves_an_image_and_its_masks(seed, padding, shape):
    """Each as it would be moved alone, with the same draw; the masks in their own dtypes and numbers of axes."""
    image = image_of(*shape)
    flat, deep = image[..., 0].astype(np.int64), np.stack([image[..., 0] > 3] * 2, axis=-1)
    for transform in (
        RandomFlipHorizontal(),
        RandomCrop(padding),
        Compose([RandomCrop(padding), RandomFlipHorizontal()]),
    ):

        def alone(array, transform=transform):
            np.random.seed(seed)
            return transform(array)

        expected = alone(image), alone(flat[..., None])[..., 0], alone(deep)
        after = np.random.rand()
        np.random.seed(seed)
        moved = transform(image, flat, deep)
        assert np.random.rand() == after
        assert type(moved) is tuple
        for one, other in zip(moved, expected, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_normalize_leaves_masks_as_they_are():
    mask = np.ones((2, 3))
    image, same = Normalize(1, 2)(np.ones((2, 3, 1)), mask)
    assert np.shares_memory(same, mask)
    np.testing.assert_array_equal(same, mask, strict=True)
    assert not image.any()


# ---- Normalize and Compose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("mean", "std"), [(0.5, 0.25), ([0.485, 0.456, 0.406], np.array([0.229, 0.224, 0.225])), (1, [2])]
)
def test_normalize_is_torch_s_subtraction_and_division(dtype, mean, std):
    image = np.random.default_rng(0).random((4, 5, len(np.atleast_1d(std)))).astype(dtype)
    x = torch.tensor(image)
    expected = (x - torch.tensor(mean, dtype=x.dtype)) / torch.tensor(std, dtype=x.dtype)
    np.testing.assert_array_equal(Normalize(mean, std)(image), expected.numpy(), strict=True)


def test_normalize_in_a_dataset_of_images():
    images = np.random.default_rng(0).random((4, 3, 6, 5), np.float32)
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    normalized, _ = ImageDataset(images, np.arange(4), transforms=[Normalize(mean, std)])[:]
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(normalized.std((0, 2, 3)), 1, atol=1e-6)


def test_compose_applies_in_order():
    both = Compose([lambda x: x + 1, lambda x: x * 10])
    assert both(np.array(2)) == 30
    assert Compose([])(np.array(2)) == 2
    assert Compose([both, both])(np.array(2)) == 310
    moved = Compose([lambda x, mask: (x + 1, mask), lambda x, mask: (x, mask * 2)])(np.array(2), np.array(3))
    assert moved == (3, 6)


def test_the_input_image_is_not_modified():
    image = image_of(4, 4)
    for transform in (RandomFlipHorizontal(1), RandomCrop(2)):
        transform(image)
    np.testing.assert_array_equal(image, image_of(4, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: RandomFlipHorizontal(1.5),
            ValueError,
            r"^RandomFlipHorizontal: p must lie in \[0, 1\], but got 1.5$",
        ),
        (lambda: RandomCrop(-1), ValueError, "^RandomCrop: padding must be at least 0, but got -1$"),
        (lambda: RandomCrop(0.5), TypeError, "^RandomCrop: padding must be an integer, but got 0.5$"),
        (
            lambda: RandomFlipHorizontal()(np.zeros((28, 28))),
            ValueError,
            r"^RandomFlipHorizontal: image must be H x W x C, but got shape \(28, 28\)$",
        ),
        (
            lambda: RandomCrop()(np.zeros((1, 1, 28, 28))),
            ValueError,
            r"^RandomCrop: image must be H x W x C, but got shape \(1, 1, 28, 28\)$",
        ),
        (
            lambda: RandomCrop()(np.zeros((6, 5, 3)), np.zeros((6, 5)), np.zeros((5, 6))),
            ValueError,
            r"^RandomCrop: masks must have the size of the image \(6, 5, 3\), but got shape \(5, 6\)$",
        ),
        (
            lambda: RandomCrop()(np.zeros((6, 5, 3)), [[0] * 5] * 6),
            TypeError,
            "^RandomCrop: an image and its masks must be a ndarray, but got list$",
        ),
        (lambda: Compose(abs), TypeError, "^Compose: transforms must be a list of callables, but got <built-in"),
        (lambda: Compose([3]), TypeError, r"^Compose: transforms must be a list of callables, but got \[3\]$"),
        (lambda: Normalize(0, 0), ValueError, "^Normalize: std must be greater than 0, but got 0$"),
        (lambda: Normalize(0, [1, -1]), ValueError, r"^Normalize: std must be greater than 0, but got \[1, -1\]$"),
        (
            lambda: Normalize(np.nan, 1),
            ValueError,
            "^Normalize: mean must be a number or one per channel, but got nan$",
        ),
        (
            lambda: Normalize(0, [[1]]),
            ValueError,
            r"^Normalize: std must be a number or one per channel, but got \[\[1\]\]$",
        ),
        (
            lambda: Normalize(0, [1, 2])(np.zeros((4, 5, 3))),
            ValueError,
            r"^Normalize: mean and std must be numbers or have one for each channel of image \(4, 5, 3\), but got 2$",
        ),
        (
            lambda: Normalize(0, 1)(np.zeros((4, 5, 3), np.int16)),
            TypeError,
            "^Normalize: images must be of uint8 or floats, but got int16$",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
