"""Datasets: items, slices, stacking, transforms, errors."""

from __future__ import annotations

import numpy as np
import pytest

from needle.data import Dataset, NDArrayDataset


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
        (lambda: Dataset()[0], NotImplementedError, "^Dataset: a dataset must define __getitem__$"),
        (lambda: len(Dataset()), NotImplementedError, "^Dataset: a dataset must define __len__$"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
