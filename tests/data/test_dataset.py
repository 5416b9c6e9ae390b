"""Datasets: items, slices, stacking, transforms, errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import needle as ndl
from needle.data import DataLoader, Dataset, ImageDataset, NDArrayDataset, RandomCrop, RandomFlipHorizontal


class Squares(Dataset):
    """Item i is (i, i²); defines `__getitem__` and `__len__` only."""

    def __getitem__(self, index):
        return self.apply_transforms(np.full((2,), index, np.float32)), index**2

    def __len__(self):
        return 5


class Listed(Dataset):
    """The items passed to the constructor."""

    def __init__(self, *items):
        super().__init__()
        self.items = items

    def __getitem__(self, index):
        return self.items[index]

    def __len__(self):
        return len(self.items)


@pytest.fixture
def images():
    return np.arange(5 * 2 * 3 * 1, dtype=np.float32).reshape(5, 2, 3, 1)


@pytest.fixture
def labels():
    return np.array([3, 1, 4, 1, 5], dtype=np.uint8)


def test_transforms_apply_in_order():
    dataset = Dataset([lambda x: x + 1, lambda x: x * 10])
    assert dataset.apply_transforms(np.array(2)) == 30
    assert Dataset().apply_transforms(np.array(2)) == 2


def test_take_stacks_items_field_by_field():
    x, y = Squares([lambda x: -x]).take(np.array([3, 1]))
    np.testing.assert_array_equal(x, [[-3, -3], [-1, -1]])
    np.testing.assert_array_equal(y, [9, 1])


def test_take_of_bare_items_has_one_field():
    (x,) = Listed(np.zeros(2), np.ones(2)).take([1, 0])
    np.testing.assert_array_equal(x, [[1, 1], [0, 0]])


def test_items_of_arrays(images, labels):
    dataset = NDArrayDataset(images, labels)
    image, label = dataset[3]
    assert len(dataset) == 5
    assert isinstance(dataset[3], tuple)
    np.testing.assert_array_equal(image, images[3])
    assert label == 1
    assert label.dtype == np.uint8


def test_nested_lists_are_arrays():
    assert NDArrayDataset([[1, 2], [3, 4]])[1][0].tolist() == [3, 4]


@pytest.mark.parametrize("index", [slice(1, 4), slice(None, None, -2), [4, 0, 4], np.array([True, False] * 2 + [True])])
@pytest.mark.parametrize("transforms", [(), [lambda image: image[::-1] * 2]], ids=["plain", "transformed"])
def test_slices_and_index_arrays_stack_items(images, labels, index, transforms):
    dataset = NDArrayDataset(images, labels, transforms=transforms)
    selected_images, selected_labels = dataset[index]
    numbers = np.arange(5)[index]
    np.testing.assert_array_equal(selected_images, np.stack([dataset[i][0] for i in numbers]))
    np.testing.assert_array_equal(selected_labels, labels[numbers])
    for taken, expected in zip(dataset.take(numbers), dataset[index], strict=True):
        np.testing.assert_array_equal(taken, expected)
        assert taken.dtype == expected.dtype


@pytest.mark.parametrize("indices", [[0, 1], (0, 1), range(2), np.array([0, 1])], ids=repr)
def test_take_accepts_any_sequence_of_indices(indices):
    array = np.arange(12).reshape(3, 2, 2)
    (batch,) = NDArrayDataset(array).take(indices)
    np.testing.assert_array_equal(batch, array[:2])


def destroy(image):
    """A transform that writes into the image that it is given."""
    image[...] = -1
    return image


@pytest.mark.parametrize("kind", [NDArrayDataset, ImageDataset])
@pytest.mark.parametrize("layout", [lambda x: x, np.asfortranarray, lambda x: x[::-1], lambda x: x[:, ::2]])
def test_a_transform_that_writes_into_its_image_leaves_the_dataset_as_it_is(kind, layout, labels):
    stored = layout(np.random.rand(5, 6, 2, 1).astype("float32"))
    before = stored.copy()
    dataset = kind(stored, labels, transforms=[destroy])
    assert (dataset[1][0] == -1).all()
    assert (dataset[1:3][0] == -1).all()
    assert (dataset.take([0, 4])[0] == -1).all()
    assert all((images.numpy() == -1).all() for images, _ in DataLoader(dataset, 2))
    np.testing.assert_array_equal(stored, before)


@pytest.mark.parametrize(
    "index", [2, -1, np.int64(0), slice(1, 3), slice(None), np.array([1, 1]), [True] + [False] * 4]
)
@pytest.mark.parametrize("kind", [NDArrayDataset, ImageDataset])
def test_items_and_slices_own_their_data(kind, index, images, labels):
    dataset = kind(images, labels)
    before = images.copy(), labels.copy()
    for field in dataset[index]:
        if isinstance(field, np.ndarray):
            field[...] = 9
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_items_of_a_read_only_array_may_be_written_to():
    stored = np.ones((2, 3))
    stored.flags.writeable = False
    assert NDArrayDataset(stored, transforms=[destroy])[0][0].tolist() == [-1] * 3


@pytest.mark.parametrize("transform", [RandomFlipHorizontal(1), RandomCrop(2)], ids=["flip", "crop"])
def test_images_in_the_other_layout_are_refused_by_name(transform):
    """Photographs (3, 8, 8) would be flipped upside down; `ImageDataset` flips them left to right."""
    photographs = np.random.rand(2, 3, 8, 8)
    name = type(transform).__name__
    with pytest.raises(
        ValueError, match=rf"^{name}: image must be H x W x C, but got shape \(3, 8, 8\), C x H x W; use"
    ):
        NDArrayDataset(photographs, transforms=[transform])[0]
    assert ImageDataset(photographs, transforms=[transform])[0][0].shape == (3, 8, 8)
    channels_last = np.moveaxis(photographs, 1, -1)
    assert NDArrayDataset(channels_last, transforms=[transform])[0][0].shape == (8, 8, 3)
    message = (
        r"^ImageDataset: images must be N x C x H x W, but got shape \(2, 8, 8, 3\); use NDArrayDataset for N x H x"
    )
    with pytest.raises(ValueError, match=message):
        ImageDataset(channels_last, transforms=[transform])


@pytest.mark.parametrize(
    ("wrong", "shape"),
    [
        (lambda image: None, ()),
        (lambda image: image[..., 0], (5, 6)),
        (lambda image: image.transpose(2, 0, 1), (3, 5, 6)),  # as torchvision's ToTensor does
    ],
)
def test_a_transform_that_returns_no_image_is_refused(wrong, shape):
    message = rf"^ImageDataset: transforms must return images H x W x C, but got shape {re.escape(str(shape))}$"
    with pytest.raises(ValueError, match=message):
        ImageDataset(np.zeros((1, 3, 5, 6)), transforms=[wrong])[0]


def test_transforms_of_what_is_no_batch_of_images():
    message = r"^ImageDataset: images must be N x C x H x W, but got shape \(2, 28, 28\)$"
    with pytest.raises(ValueError, match=message):
        ImageDataset(np.zeros((2, 28, 28)), transforms=[RandomCrop(2)])


def test_image_datasets_flip_left_to_right():
    photographs = np.arange(3 * 5 * 6.0).reshape(1, 3, 5, 6)
    flipped = ImageDataset(photographs, transforms=[RandomFlipHorizontal(1)])
    np.testing.assert_array_equal(flipped[0][0], photographs[0, :, :, ::-1])


def test_iteration_ends(images, labels):
    assert [int(label) for _, label in NDArrayDataset(images, labels)] == [3, 1, 4, 1, 5]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: NDArrayDataset(np.zeros((3, 2)), np.zeros(4)),
            ValueError,
            r"^NDArrayDataset: arrays must agree in length, but got shapes \[\(3, 2\), \(4,\)\]$",
        ),
        (
            lambda: NDArrayDataset(),
            ValueError,
            r"^NDArrayDataset: arrays must have at least one axis each, but got shapes \[\]$",
        ),
        (
            lambda: NDArrayDataset(np.zeros(3), np.float64(1)),
            ValueError,
            r"^NDArrayDataset: arrays must have at least one axis each, but got shapes \[\(3,\), \(\)\]$",
        ),
        (
            lambda: Listed((1, np.zeros(2)), (1, np.zeros(3))).take([0, 1]),
            ValueError,
            r"^Dataset.take: items must agree in shape, but field 1 has shapes \[\(2,\), \(3,\)\]$",
        ),
        (
            lambda: Listed((1, 2), (1,)).take([0, 1]),
            ValueError,
            r"^Dataset.take: items must agree in their number of fields, but got \[1, 2\]$",
        ),
        (
            lambda: Dataset(abs),
            TypeError,
            "^Dataset: transforms must be a list of callables, but got <built-in function",
        ),
        (
            lambda: NDArrayDataset([[1.0]], [7], [abs]),
            TypeError,
            r"^NDArrayDataset: arrays must hold numbers, but got \[<built-in function abs>\]$",
        ),
        (
            lambda: NDArrayDataset([1], transforms=[abs, 2]),
            TypeError,
            "^NDArrayDataset: transforms must be a list of callables, but got .<built-in function abs>, 2",
        ),
        (lambda: Dataset("ab"), TypeError, "^Dataset: transforms must be a list of callables, but got 'ab'$"),
        (lambda: Dataset()[0], NotImplementedError, "^Dataset: a dataset must define __getitem__$"),
        (lambda: len(Dataset()), NotImplementedError, "^Dataset: a dataset must define __len__$"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("transforms", [None, [lambda image: image]])
@pytest.mark.parametrize("index", [(0, 1), True, np.True_, None], ids=repr)
def test_what_would_cut_items_or_add_an_axis_is_no_index(transforms, index):
    dataset = NDArrayDataset(np.zeros((3, 2, 2)), transforms=transforms)
    message = f"NDArrayDataset: index must be an integer, a slice or an array, but got {index!r}"
    with pytest.raises(IndexError, match=f"^{re.escape(message)}$"):
        dataset[index]


@pytest.mark.parametrize("transforms", [None, [lambda image: image + 1]])
@pytest.mark.parametrize("index", [np.array(2), ndl.tensor(2), torch.tensor(2)], ids=lambda index: type(index).__name__)
def test_an_array_of_one_index_is_that_index(transforms, index):
    dataset = NDArrayDataset(np.arange(12.0).reshape(3, 4), np.arange(3), transforms=transforms)
    row, label = dataset[index]
    np.testing.assert_array_equal(row, np.arange(8.0, 12) + bool(transforms))
    assert label == 2


def test_transforms_and_their_options_may_be_set_later():
    images = np.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
    flip, crop = RandomFlipHorizontal(0), RandomCrop(0)
    dataset = NDArrayDataset(images)
    dataset.transforms = [flip, crop]
    np.testing.assert_array_equal(dataset[1][0], images[1])
    flip.p = 1
    np.testing.assert_array_equal(dataset[1][0], images[1, :, ::-1])
    with pytest.raises(ValueError, match=r"^RandomFlipHorizontal: p must lie in \[0, 1\], but got 2$"):
        flip.p = 2
    with pytest.raises(ValueError, match=r"^RandomCrop: padding must be at least 0, but got -1$"):
        crop.padding = -1
    wrong = ImageDataset(images)
    wrong.transforms = [flip]
    with pytest.raises(ValueError, match=r"^ImageDataset: images must be N x C x H x W"):
        wrong[0]
