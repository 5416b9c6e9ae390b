"""Transforms of images: their results, and their draws from NumPy's global generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needle.data import RandomCrop, RandomFlipHorizontal


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


def test_a_draw_of_p_itself_does_not_flip(monkeypatch):
    monkeypatch.setattr(np.random, "rand", lambda: 0.0)
    image = np.arange(6).reshape(1, 2, 3)
    assert RandomFlipHorizontal(0)(image) is image


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
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
