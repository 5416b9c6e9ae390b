"""Transforms of whole batches: laws, what torch computes, and a batch as its images one by one."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from needle.data import (
    BatchTransform,
    CenterCrop,
    ColorJitter,
    Compose,
    CutMix,
    Cutout,
    ImageTransform,
    MixUp,
    Normalize,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomFlipHorizontal,
    RandomFlipVertical,
    Resize,
)

FLOATS = np.random.default_rng(0).random((6, 3, 9, 7), np.float32)
BYTES = np.random.default_rng(1).integers(0, 256, (6, 3, 9, 7), np.uint8)
MASKS = np.random.default_rng(2).integers(0, 9, (6, 9, 7))
SQUARE = FLOATS[..., :7, :]

TRANSFORMS = {
    "pad": Pad((2, 1), fill=[1, 0, 1]),
    "center": CenterCrop((5, 4)),
    "crop": RandomCrop(3, fill=1),
    "crop to a size": RandomCrop(1, size=(6, 4)),
    "flip": RandomFlipHorizontal(),
    "flip vertical": RandomFlipVertical(0.3),
    "normalize": Normalize([0.1, 0.2, 0.3], 0.5),
    "cutout": Cutout((3, 4), fill=1),
    "jitter": ColorJitter(0.5, 0.4, 0.3, 0.2),
    "affine": RandomAffine(30, (0.1, 0.2), (0.5, 1.5), 20, fill=1),
    "affine, nearest": RandomAffine((20, 200), 0.3, (0.5, 0.5), mode="nearest"),
    "resize": Resize((4, 11)),
    "resize, nearest": Resize(5, "nearest"),
}
TRANSFORMS["all"] = Compose([Compose([*TRANSFORMS.values()][:7]), *[*TRANSFORMS.values()][7:]])


def stream(seed=5):
    return np.random.default_rng(seed)


# ---- what holds for all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [FLOATS, BYTES, FLOATS.astype(np.float64)], ids=["float32", "uint8", "float64"])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_batch_is_its_images_one_by_one(transform, images):
    """Draw for draw and bit for bit, with a mask each; and a part of a batch is that part of the whole."""
    before = images.copy()
    moved, masks, labels = transform.batch(images, MASKS, np.arange(6), generator=stream())
    generator = stream()
    for number, (image, mask) in enumerate(zip(images, MASKS, strict=True)):
        one, its_mask = transform(image.transpose(1, 2, 0), mask, generator=generator)
        np.testing.assert_array_equal(one.transpose(2, 0, 1), moved[number], strict=True)
        np.testing.assert_array_equal(its_mask, masks[number], strict=True)
        deep = transform(image.transpose(1, 2, 0), np.stack([mask, mask], -1), generator=stream(number))[1]
        flat = transform(image.transpose(1, 2, 0), mask, generator=stream(number))[1]
        np.testing.assert_array_equal(deep, np.stack([flat, flat], -1))
    numbers = stream().random((6, transform.draws))
    part = transform.apply((images[2:4], MASKS[2:4], np.arange(2)), numbers[2:4])
    np.testing.assert_array_equal(part[0], moved[2:4], strict=True)
    np.testing.assert_array_equal(labels, np.arange(6))
    np.testing.assert_array_equal(images, before)
    assert masks.dtype == MASKS.dtype
    is_normalized = isinstance(transform, Normalize | Compose)
    assert moved.dtype == (np.float32 if is_normalized and images is BYTES else images.dtype)


@pytest.mark.parametrize("transform", [*TRANSFORMS.values(), MixUp(6), CutMix(6)], ids=[*TRANSFORMS, "mixup", "cutmix"])
def test_an_empty_batch_stays_empty(transform):
    moved, labels = transform.batch(FLOATS[:0], np.arange(0))
    assert len(moved) == len(labels) == 0


@pytest.mark.parametrize("name", ["crop", "crop to a size", "flip", "flip vertical", "cutout", "jitter", "affine"])
def test_each_number_that_is_drawn_counts(name):
    """So no two choices, such as a row and a column, hang on one number."""
    transform = TRANSFORMS[name]
    numbers = stream().random((6, transform.draws))
    for column in range(transform.draws):
        others = numbers.copy()
        others[:, column] = 1 - others[:, column]
        images, changed = (transform.compute(FLOATS, each) for each in (numbers, others))
        assert not np.array_equal(images, changed)


def test_without_a_generator_the_global_one_is_drawn_from():
    np.random.seed(3)
    expected = np.random.random((6, 5))
    np.random.seed(3)
    transform = RandomAffine(30, 0.1)
    np.testing.assert_array_equal(transform.batch(FLOATS), transform.compute(FLOATS, expected))


def test_a_transform_of_ones_own_serves_images_and_batches():
    class Brighter(ImageTransform):
        draws = 1

        def compute(self, images, numbers):
            return images + numbers[:, :, None, None].astype(images.dtype)

    moved = Brighter().batch(FLOATS, generator=stream())
    np.testing.assert_array_equal(moved, FLOATS + stream().random((6, 1, 1, 1)).astype(np.float32))
    image = FLOATS[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(Brighter()(image, generator=stream()), moved[0].transpose(1, 2, 0))


# ---- moved pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [RandomFlipHorizontal(1), RandomFlipVertical(1)])
def test_two_flips_are_none(flip):
    once = flip.batch(FLOATS)
    assert not np.array_equal(once, FLOATS)
    np.testing.assert_array_equal(flip.batch(once), FLOATS)


def test_flips_are_numpy_s_of_the_images_below_p():
    numbers = np.array([[0.1], [0.29], [0.3], [0.9], [0.0], [0.5]])
    for flip, axis in ((RandomFlipHorizontal(0.3), 2), (RandomFlipVertical(0.3), 1)):
        moved = flip.compute(FLOATS, numbers)
        for image, other, number in zip(FLOATS, moved, numbers.ravel(), strict=True):
            np.testing.assert_array_equal(other, np.flip(image, axis) if number < 0.3 else image)


@given(rows=st.integers(0, 3), columns=st.integers(0, 3), fill=st.integers(0, 255))
def test_a_crop_of_a_padded_image_is_the_image(rows, columns, fill):
    padded = Pad((rows, columns), fill).batch(BYTES)
    expected = F.pad(torch.tensor(BYTES), (columns, columns, rows, rows), value=fill).numpy()
    np.testing.assert_array_equal(padded, expected, strict=True)
    np.testing.assert_array_equal(CenterCrop((9, 7)).batch(padded), BYTES)


@given(seed=st.integers(0, 999), padding=st.integers(0, 4), size=st.tuples(st.integers(1, 9), st.integers(1, 7)))
def test_a_random_crop_is_a_window_of_the_padded_image(seed, padding, size):
    moved = RandomCrop(padding, size=size, fill=7).batch(BYTES, generator=stream(seed))
    padded = Pad(padding, 7).batch(BYTES)
    for image, crop, (row, column) in zip(padded, moved, stream(seed).random((6, 2)), strict=True):
        top, left = int(row * (9 + 2 * padding - size[0] + 1)), int(column * (7 + 2 * padding - size[1] + 1))
        np.testing.assert_array_equal(crop, image[:, top : top + size[0], left : left + size[1]], strict=True)


def test_all_shifts_occur_equally_often():
    numbers = np.stack([np.arange(2000) / 2000, np.full(2000, 0.5)], 1)
    image = np.arange(1, 8, dtype=np.uint8).reshape(1, 1, 7, 1)
    middles = RandomCrop(3).compute(image.repeat(2000, 0), numbers)[:, 0, 3, 0]
    counts = np.bincount(middles)
    assert len(counts) == 8
    assert {*counts[1:]} <= {285, 286}


@pytest.mark.parametrize("size", [(3, 4), (9, 7), (4, 3)])
def test_the_middle_is_cut_out(size):
    cut = CenterCrop(size).batch(FLOATS)
    top, left = (9 - size[0]) // 2, (7 - size[1]) // 2
    np.testing.assert_array_equal(cut, FLOATS[:, :, top : top + size[0], left : left + size[1]])


# ---- affine maps and sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("images", [SQUARE, BYTES[..., :7, :], SQUARE[..., :6, :6]], ids=["odd", "bytes", "even"])
def test_quarter_turns_are_rot90(images, mode):
    for quarters in range(-4, 5):
        turned = RandomAffine((90 * quarters, 90 * quarters), mode=mode, fill=1).batch(images)
        np.testing.assert_array_equal(turned, np.rot90(images, quarters, (2, 3)), strict=True)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_identity_and_whole_shifts_keep_pixels(mode):
    for images in (BYTES, FLOATS, np.random.default_rng(3).random((2, 3, 5, 4)), FLOATS.astype(np.float16)):
        np.testing.assert_array_equal(RandomAffine(mode=mode).batch(images), images, strict=True)
    numbers = np.tile([0.5, 1.0, 0.0, 0.5, 0.5], (6, 1))  # down by 2 of 8 rows, left by 1 of 4 columns
    moved = RandomAffine(translate=(2 / 8, 1 / 4), mode=mode, fill=9).compute(BYTES[:, :, :8, :4], numbers)
    np.testing.assert_array_equal(moved[:, :, 2:, :3], BYTES[:, :, :6, 1:4])
    assert (moved[:, :, :2] == 9).all()
    assert (moved[..., 3] == 9).all()


def test_shear_moves_the_rows_above_the_center_to_the_right():
    image = np.zeros((1, 1, 5, 5), np.uint8)
    image[..., 2] = 1  # a vertical line
    sheared = RandomAffine(shear=(45, 45)).batch(image)
    np.testing.assert_array_equal(sheared[0, 0], np.eye(5, dtype=np.uint8)[::-1])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@given(
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    scale=st.floats(0.5, 2),
    shear=st.floats(-60, 60),
)
def test_affine_maps_are_torch_s(mode, angle, shift, scale, shear):
    """The map from torch's normalized coordinates, by torch's matrices: scale and shear, then turn, then shift."""
    transform = RandomAffine((angle, angle), 0.5, (scale, scale), (shear, shear), mode=mode)
    numbers = np.tile([0.0, shift[0] + 0.5, shift[1] + 0.5, 0.0, 0.0], (6, 1))
    moved = transform.compute(FLOATS, numbers)
    a, (height, width) = np.radians(angle), FLOATS.shape[2:]
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])  # of (x, y) with y downwards: counterclockwise
    forward = scale * turn @ np.array([[1, -np.tan(np.radians(shear))], [0, 1]])
    inverse = np.linalg.inv(forward)
    unit = np.diag([width / 2, height / 2])  # from normalized to pixels
    theta = np.linalg.inv(unit) @ inverse @ unit
    offset = -np.linalg.inv(unit) @ inverse @ np.array([shift[1] * width, shift[0] * height])
    matrix = torch.tensor(np.concatenate([theta, offset[:, None]], 1)[None].repeat(6, 0))
    grid = F.affine_grid(matrix, [*FLOATS.shape], align_corners=False)
    expected = F.grid_sample(torch.tensor(FLOATS).double(), grid, mode, "zeros", align_corners=False).numpy()
    if mode == "bilinear":
        np.testing.assert_allclose(moved, expected, atol=5e-5)
    else:  # ties and rounding decide between two pixels
        assert np.mean(moved != expected) <= 0.05


def test_fill_lies_all_around():
    moved = RandomAffine(translate=(1.0, 1.0), fill=[1, 2, 3]).compute(FLOATS, np.full((6, 5), 1 - 2**-53))
    np.testing.assert_array_equal(moved, np.broadcast_to(np.float32([1, 2, 3])[:, None, None], FLOATS.shape))
    halfway = RandomAffine(translate=(0.5 / 9, 0)).compute(np.ones((1, 1, 9, 7)), np.array([[0, 1, 0, 0, 0.0]]))
    np.testing.assert_allclose(halfway[0, 0, 0], 0.5, atol=1e-6)  # the fill blends in, as in torch


def test_bytes_are_rounded_and_not_cut_off():
    moved = RandomAffine((33, 33), fill=255).batch(BYTES)
    floats = RandomAffine((33, 33), fill=255).batch(BYTES.astype(np.float32))
    np.testing.assert_array_equal(moved, np.rint(floats))


def test_large_images_are_moved_in_blocks_alike(monkeypatch):
    transform = TRANSFORMS["affine"]
    expected = transform.batch(FLOATS, generator=stream())
    monkeypatch.setattr("needle.data.transforms.affine.BLOCK_PIXELS", 130)
    np.testing.assert_array_equal(transform.batch(FLOATS, generator=stream()), expected)


def test_masks_are_moved_to_the_nearest_pixel():
    """Of a mask turned by any angle no value is new, and it moves as an image does by mode "nearest"."""
    options = {"degrees": 40, "translate": 0.2, "scale": (0.7, 1.4), "shear": 10}
    rows = MASKS[:, :5]  # another height: no masks
    _, moved, kept = RandomAffine(**options, fill=1).batch(FLOATS, MASKS, rows, generator=stream())
    np.testing.assert_array_equal(kept, rows)
    nearest = RandomAffine(**options, mode="nearest").batch(MASKS[:, None].astype(np.uint8), generator=stream())
    np.testing.assert_array_equal(moved, nearest[:, 0])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(4, 3), (18, 14), (5, 20), (9, 7), (1, 1), (8, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resizing_is_torch_s(dtype, size, antialias):
    x = torch.tensor(FLOATS.astype(dtype))
    expected = F.interpolate(x, size, mode="bilinear", antialias=antialias).numpy()
    resized = Resize(size, antialias=antialias).batch(x.numpy())
    np.testing.assert_allclose(resized, expected, rtol=0, atol=2e-6 if dtype == "float32" else 1e-12)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(
        Resize(size, "nearest").batch(BYTES), F.interpolate(torch.tensor(BYTES), size, mode="nearest-exact").numpy()
    )
    floats = Resize(size, antialias=antialias).batch(BYTES.astype(np.float32))
    np.testing.assert_array_equal(Resize(size, antialias=antialias).batch(BYTES), np.rint(floats))


# ---- values ----------------------------------------------------------------------------------------------------------


def test_bytes_are_normalized_as_floats_in_0_to_1():
    transform = Normalize([0.1, 0.2, 0.3], [0.5, 0.25, 1])
    expected = transform.batch(BYTES / np.float32(255))
    normalized = transform.batch(BYTES)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize("side", [1, 3, 4, 20])
def test_cutout_fills_a_square_around_a_pixel(side):
    numbers = stream().random((6, 2))
    cut = Cutout(side, fill=2).compute(FLOATS, numbers)
    for image, other, (row, column) in zip(FLOATS, cut, numbers, strict=True):
        top, left = int(row * 9) - side // 2, int(column * 7) - side // 2
        expected = image.copy()
        expected[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 2
        np.testing.assert_array_equal(other, expected)


def jitter(name, factor, images):
    """A jitter of one kind with this factor, or turn."""
    most = 0.5 if name == "hue" else 1.0
    number = (factor + most) / (2 * most) if name == "hue" else factor / 2
    options = {name: most}
    column = ["brightness", "contrast", "saturation", "hue"].index(name)
    numbers = np.zeros((len(images), 4))
    numbers[:, column] = number
    return ColorJitter(**options).compute(images, numbers)


def test_jitter_with_factor_1_and_no_turn_changes_nothing():
    for name in ("brightness", "contrast", "saturation"):
        np.testing.assert_allclose(jitter(name, 1.0, FLOATS), FLOATS, atol=1e-6)
        np.testing.assert_array_equal(jitter(name, 1.0, BYTES), BYTES)
    np.testing.assert_allclose(jitter("hue", 0.0, FLOATS), FLOATS, atol=1e-6)
    assert ColorJitter().batch(FLOATS) is FLOATS


def test_jitter_s_four_definitions():
    gray = np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], FLOATS)[:, None]
    x = FLOATS.astype(np.float64)
    mean = gray.mean((1, 2, 3), keepdims=True)
    for factor in (0.0, 0.4, 1.7):
        for name, expected in (
            ("brightness", factor * x),
            ("contrast", mean + factor * (x - mean)),
            ("saturation", gray + factor * (x - gray)),
        ):
            np.testing.assert_allclose(jitter(name, factor, FLOATS), expected.clip(0, 1), atol=1e-6)


def test_a_third_of_a_turn_of_the_hue_exchanges_the_colors():
    np.testing.assert_allclose(jitter("hue", 1 / 3, FLOATS), FLOATS[:, [2, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(jitter("hue", -1 / 3, FLOATS), FLOATS[:, [1, 2, 0]], atol=1e-6)


@given(turn=st.floats(-0.5, 0.5))
def test_hue_is_that_of_colorsys(turn):
    import colorsys

    turned = jitter("hue", turn, FLOATS)
    for n, row, column in [(0, 0, 0), (1, 4, 2), (2, 8, 6), (3, 5, 5)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*FLOATS[n, :, row, column].astype(float))
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(turned[n, :, row, column], expected, atol=2e-6)


def test_gray_images_have_no_saturation_and_no_hue():
    gray = FLOATS[:, :1]
    assert ColorJitter(saturation=1, hue=0.5).batch(gray) is gray
    mean = gray.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(jitter("contrast", 0.0, gray), np.broadcast_to(mean, gray.shape), atol=1e-6)


def test_every_kind_of_jitter_is_applied_in_order():
    numbers = stream().random((6, 4))
    together = ColorJitter(0.2, 0.3, 0.4, 0.1).compute(FLOATS, numbers)
    parts = [ColorJitter(0.2), ColorJitter(0, 0.3), ColorJitter(0, 0, 0.4), ColorJitter(0, 0, 0, 0.1)]
    x = FLOATS
    for part in parts:
        x = part.compute(x, numbers)
    np.testing.assert_array_equal(together, x)


# ---- mixtures --------------------------------------------------------------------------------------------------------

LABELS = np.array([0, 1, 2, 0, 1, 2])
EQUAL = np.broadcast_to(FLOATS[:1], FLOATS.shape)


@pytest.mark.parametrize("transform", [MixUp(3), CutMix(3)], ids=["mixup", "cutmix"])
@given(seed=st.integers(0, 9999))
def test_mixing_equal_images_changes_none_and_targets_are_probabilities(transform, seed):
    images, targets = transform.batch(EQUAL, LABELS, generator=stream(seed))
    np.testing.assert_array_equal(images, EQUAL)
    assert targets.dtype == np.float32
    assert targets.shape == (6, 3)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    _, again = transform.batch(EQUAL, np.eye(3, dtype=np.float32)[LABELS], generator=stream(seed))
    np.testing.assert_array_equal(again, targets)
    np.testing.assert_allclose(targets.sum(0), 2, atol=1e-5)  # a permutation: each class as often as before


def test_mixup_mixes_images_as_targets():
    images = np.eye(6, dtype=np.float32)[:, :, None, None]  # image i is its own one-hot target
    shares = []
    for seed in range(40):
        mixed, targets = MixUp(6, alpha=0.4).batch(images, np.arange(6), generator=stream(seed))
        np.testing.assert_allclose(mixed[:, :, 0, 0], targets, atol=1e-6)
        kept = targets[np.arange(6), np.arange(6)]
        shares += [min(kept)]
        assert len({*np.round(kept[kept < 1], 5)}) <= 1  # one λ per batch
    assert min(shares) < 0.1
    assert max(shares) > 0.9


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_have_the_moments_of_beta(alpha):
    mix = MixUp(2, alpha)
    kept = np.array([mix._keep(row[None]) for row in stream().random((1000, 2))])
    assert abs(kept.mean() - 0.5) < 0.04
    assert abs(kept.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


@pytest.mark.parametrize("images", [FLOATS, BYTES], ids=["floats", "bytes"])
def test_cutmix_takes_a_box_and_its_share(images):
    tagged = np.broadcast_to(np.arange(6).reshape(6, 1, 1, 1), images.shape).astype(images.dtype)
    shares = set()
    for seed in range(30):
        mixed, targets = CutMix(6).batch(tagged, np.arange(6), generator=stream(seed))
        assert mixed.dtype == images.dtype
        for number, (image, target) in enumerate(zip(mixed, targets, strict=True)):
            counts = np.bincount(image[0].astype(int).ravel(), minlength=6) / 63
            np.testing.assert_allclose(target, counts, atol=1e-6)
            rows, columns = np.nonzero(image[0] != number)
            if rows.size:
                assert rows.size == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # a box
                shares.add(rows.size)
        np.testing.assert_array_equal(mixed[:, 0], mixed[:, 2])
    assert len(shares) > 8


def test_the_box_of_cutmix_lies_around_a_drawn_pixel(monkeypatch):
    """Half as high and as wide as the image for λ = 3/4; what lies outside of the image is lost."""
    monkeypatch.setattr(CutMix, "_keep", lambda self, numbers: 0.75)
    images = np.stack([np.zeros((1, 20, 12)), np.ones((1, 20, 12))])
    for center, rows, columns, share in (
        ((0.5, 0.25), slice(5, 15), slice(0, 6), 0.25),
        ((0.95, 0.99), slice(14, 20), slice(8, 12), 0.1),
    ):
        mixed, targets = CutMix(2).apply((images, np.arange(2)), np.array([[0.9, 0, *center], [0.1, 0, 0, 0]]))
        expected = np.zeros((20, 12))
        expected[rows, columns] = 1
        np.testing.assert_array_equal(mixed[0, 0], expected)
        np.testing.assert_allclose(targets, [[1 - share, share], [share, 1 - share]], rtol=1e-6)


def test_cross_entropy_takes_the_targets():
    from needle import Tensor, nn

    _, targets = MixUp(3).batch(FLOATS, LABELS, generator=stream())
    logits = stream(1).random((6, 3), np.float32)
    loss = nn.CrossEntropyLoss()(Tensor(logits), Tensor(targets))
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(loss.numpy(), expected.numpy(), rtol=1e-5)


# ---- errors ----------------------------------------------------------------------------------------------------------

INTEGERS = np.zeros((2, 3, 9, 7), np.int64)
ERRORS = [
    (
        lambda: RandomCrop().batch(FLOATS[0]), ValueError,
        "RandomCrop: images must be N x C x H x W, but got shape (3, 9, 7)",
    ),
    (
        lambda: Normalize(0, 1).batch(FLOATS.transpose(0, 2, 3, 1)), ValueError,
        "Normalize: images must be N x C x H x W, but got shape (6, 9, 7, 3), N x H x W x C",
    ),
    (lambda: Pad(1).batch([[1]]), TypeError, "Pad: field 0 must be a ndarray, but got list"),
    (lambda: Pad(1).batch(FLOATS, [1]), TypeError, "Pad: field 1 must be a ndarray, but got list"),
    (lambda: Pad(-1), ValueError, "Pad: padding must be at least 0, but got -1"),
    (lambda: Pad(1, fill="x"), ValueError, "Pad: fill must be a number or one per channel, but got 'x'"),
    (lambda: Pad(1, 256).batch(BYTES), ValueError,
     "Pad: fill must lie in [0, 255], the range of uint8, but got 256"),
    (lambda: RandomAffine(9, fill=[0, 1, 0.5]).batch(BYTES), ValueError,
     "RandomAffine: fill must be an integer for images of uint8, but got 0.5"),
    (
        lambda: Pad(1, [1, 2]).batch(BYTES), ValueError,
        "Pad: fill must be numbers or have one for each channel of image (9, 7, 3), but got 2",
    ),
    (lambda: CenterCrop(0), ValueError, "CenterCrop: size must be at least 1, but got 0"),
    (
        lambda: CenterCrop(8).batch(FLOATS), ValueError,
        "CenterCrop: size must be at most that of the image (9, 7), but got (8, 8)",
    ),
    (
        lambda: RandomCrop(1, size=(9, 10)).batch(FLOATS), ValueError,
        "RandomCrop: size must be at most that of the image (11, 9), but got (9, 10)",
    ),
    (
        lambda: RandomCrop(0, size=12)(np.zeros((11, 9, 3))), ValueError,
        "RandomCrop: size must be at most that of the image (11, 9), but got (12, 12)",
    ),
    (lambda: RandomFlipVertical(2), ValueError, "RandomFlipVertical: p must lie in [0, 1], but got 2"),
    (lambda: Cutout(0), ValueError, "Cutout: size must be at least 1, but got 0"),
    (lambda: ColorJitter(-1), ValueError, "ColorJitter: brightness must lie in [0, 100], but got -1"),
    (lambda: ColorJitter(hue=0.6), ValueError, "ColorJitter: hue must lie in [0, 0.5], but got 0.6"),
    (
        lambda: ColorJitter(1).batch(FLOATS[:, :2]), ValueError,
        "ColorJitter: images must have 1 or 3 channels, but got 2",
    ),
    (
        lambda: ColorJitter(1).batch(INTEGERS), TypeError,
        "ColorJitter: images must be of uint8 or floats, but got int64",
    ),
    (lambda: Resize(0), ValueError, "Resize: size must be at least 1, but got 0"),
    (
        lambda: Resize(4, "cubic"), ValueError,
        "Resize: mode must be one of 'bilinear', 'nearest', but got 'cubic'",
    ),
    (lambda: Resize(4, antialias=1), TypeError, "Resize: antialias must be a bool, but got int"),
    (lambda: Resize(4).batch(INTEGERS), TypeError, "Resize: images must be of uint8 or floats, but got int64"),
    (lambda: RandomAffine("x"), TypeError, "RandomAffine: degrees must be a number, but got 'x'"),
    (
        lambda: RandomAffine((1, 2, 3)), ValueError,
        "RandomAffine: degrees must be a number or a range (low, high), but got (1, 2, 3)",
    ),
    (
        lambda: RandomAffine((2, 1)), ValueError,
        "RandomAffine: degrees must be a number or a range (low, high), but got (2, 1)",
    ),
    (lambda: RandomAffine((0, 400)), ValueError, "RandomAffine: degrees must lie in [-360, 360], but got 400"),
    (lambda: RandomAffine(-1), ValueError, "RandomAffine: degrees must lie in [0, 360], but got -1"),
    (lambda: RandomAffine(np.inf), ValueError, "RandomAffine: degrees must lie in [0, 360], but got inf"),
    (lambda: RandomAffine(0, (1, 2, 3)), ValueError, "RandomAffine: translate must be one number or two, but got 3"),
    (lambda: RandomAffine(0, 1.5), ValueError, "RandomAffine: translate must lie in [0, 1], but got 1.5"),
    (lambda: RandomAffine(0, 0, (0, 1)), ValueError, "RandomAffine: scale must lie in (0, inf], but got 0.0"),
    (lambda: RandomAffine(shear=90), ValueError, "RandomAffine: shear must lie in [0, 90), but got 90"),
    (lambda: RandomAffine(shear=(-90, 0)), ValueError, "RandomAffine: shear must lie in (-90, 90), but got -90"),
    (
        lambda: RandomAffine(mode="area"), ValueError,
        "RandomAffine: mode must be one of 'bilinear', 'nearest', but got 'area'",
    ),
    (
        lambda: RandomAffine(9).batch(INTEGERS), TypeError,
        "RandomAffine: images must be of uint8 or floats, but got int64",
    ),
    (lambda: MixUp(0), ValueError, "MixUp: num_classes must be at least 1, but got 0"),
    (lambda: CutMix(3, 0), ValueError, "CutMix: alpha must lie in (0, 1000], but got 0"),
    (
        lambda: MixUp(3).batch(BYTES, LABELS), TypeError,
        "MixUp: images must be of floats, but got uint8; Normalize them before",
    ),
    (
        lambda: CutMix(3).batch(FLOATS), ValueError,
        "CutMix: a batch must be images N x C x H x W and labels N or N x 3, but got shapes [(6, 3, 9, 7)]",
    ),
    (
        lambda: MixUp(3).batch(FLOATS, np.zeros((6, 2))), ValueError,
        "MixUp: a batch must be images N x C x H x W and labels N or N x 3, but got shapes [(6, 3, 9, 7), (6, 2)]",
    ),
    (lambda: MixUp(2).batch(FLOATS, LABELS), ValueError, "MixUp: labels must lie in [0, 1], but got 2"),
    (lambda: MixUp(2).batch(FLOATS, LABELS * 1.0), TypeError, "MixUp: labels must be integers, but got float64"),
    (
        lambda: MixUp(3)(FLOATS[0].transpose(1, 2, 0)), TypeError,
        "MixUp: one image must have a batch around it; give this to a DataLoader",
    ),
    (
        lambda: Compose([abs]).batch(FLOATS), TypeError,
        "Compose: transforms of batches must be BatchTransforms, but got <built-in function abs>",
    ),
    (
        lambda: BatchTransform().batch(FLOATS), NotImplementedError,
        "BatchTransform: a transform must define apply",
    ),
    (
        lambda: ImageTransform().batch(FLOATS), NotImplementedError,
        "ImageTransform: a transform must define compute",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
