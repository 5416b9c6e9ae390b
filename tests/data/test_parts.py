"""Parts of datasets, datasets in a row, and random splits."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import needle as ndl
from needle.data import (
    ConcatDataset,
    DataLoader,
    ImageDataset,
    NDArrayDataset,
    RandomCrop,
    RandomFlipHorizontal,
    Subset,
    random_split,
)
from tests.data.test_dataset import Listed

INDEXES = [0, -1, np.int64(2), slice(1, 4), slice(None, None, -2), [3, 0, 3], np.array([2]), np.array(1), ndl.tensor(2)]


class Reusing(NDArrayDataset):
    """Batches in memory that is used again, and a count of them."""

    memory = np.zeros(100)
    taken = 0

    def __getitem__(self, index):
        raise AssertionError("item by item")

    def take(self, indices):
        self.taken += 1
        batch = self.memory[: len(indices)]
        batch[:] = self.arrays[0][indices]
        return (batch,)


def same(one, other):
    for field, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(field, expected, strict=isinstance(expected, np.ndarray))


@pytest.fixture
def arrays():
    return np.random.default_rng(0).random((9, 3, 4, 5), np.float32), np.arange(9, dtype=np.uint8)


@pytest.fixture
def makers(arrays):
    """Datasets of five items, made from others, and the arrays that they stand for."""
    whole = NDArrayDataset(*arrays)
    chosen, rest = [8, 3, 3, 0, 7], [5, 2]
    part = [array[chosen] for array in arrays]
    front = [np.concatenate([array[:2], array[:0], array[rest], array[-1:]]) for array in arrays]
    return [
        (Subset(whole, chosen), part),
        (Subset(Subset(whole, [7, 8, 0, 3]), np.array([1, 3, 3, 2, 0], np.uint8)), part),
        (Subset(Listed(*zip(*arrays, strict=True)), chosen), part),
        (
            ConcatDataset([
                NDArrayDataset(*(array[:2] for array in arrays)),
                Subset(whole, []),
                Subset(whole, rest),
                Listed(whole[8]),
            ]),
            front,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("index", INDEXES, ids=repr)
def test_items_are_those_of_an_array(makers, number, index):
    dataset, expected = makers[number]
    assert len(dataset) == 5
    same(dataset[index], NDArrayDataset(*expected)[index])
    if np.ndim(index) == 1 or isinstance(index, slice):
        same(dataset.take(np.arange(5)[index]), NDArrayDataset(*expected)[index])


@pytest.mark.parametrize("number", range(4))
def test_iteration_ends_and_a_loader_reads_them(makers, number):
    dataset, (images, labels) = makers[number]
    assert [int(label) for _, label in dataset] == labels.tolist()
    for prefetch in (0, 2):
        batches = [(x.numpy(), y.numpy()) for x, y in DataLoader(dataset, 2, prefetch=prefetch)]
        same([np.concatenate(fields) for fields in zip(*batches, strict=True)], (images, labels))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("index", [5, -6, (0, 1), True, None], ids=repr)
def test_wrong_indices(makers, number, index):
    with pytest.raises(IndexError):
        makers[number][0][index]


@pytest.mark.parametrize("number", range(4))
def test_a_mask_selects_items(makers, number):
    dataset, expected = makers[number]
    mask = np.array([True, False, True, True, False])
    same(dataset[mask], [array[mask] for array in expected])


def test_a_batch_takes_once_from_each_dataset():
    parts = [Reusing(np.arange(4.0)), Reusing(np.arange(4.0, 6)), Reusing(np.arange(6.0, 9))]
    both = ConcatDataset([*parts[:2], Subset(parts[2], [2, 1, 0])])
    (batch,) = both.take([8, 0, 6, 1, 6])
    assert batch.tolist() == [6, 0, 8, 1, 8]
    assert [part.taken for part in parts] == [1, 0, 1]


def test_dtypes_of_concatenated_fields_become_one():
    both = ConcatDataset([NDArrayDataset(np.zeros(2, np.uint8)), NDArrayDataset(np.full(1, -3, np.int64))])
    np.testing.assert_array_equal(both[:][0], np.array([0, 0, -3]), strict=True)


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), data=st.data())
def test_concatenation_is_torch_s(sizes, data):
    tensors = [torch.arange(size) + 10 * number for number, size in enumerate(sizes)]
    theirs = torch.utils.data.ConcatDataset([torch.utils.data.TensorDataset(tensor) for tensor in tensors])
    ours = ConcatDataset([NDArrayDataset(tensor.numpy()) for tensor in tensors])
    assert len(ours) == len(theirs)
    if len(ours):
        indices = data.draw(st.lists(st.integers(0, len(ours) - 1), max_size=6))
        assert [int(ours[index][0]) for index in indices] == [int(theirs[index][0]) for index in indices]
        assert ours[np.array(indices, np.int64)][0].tolist() == [int(theirs[index][0]) for index in indices]


# ---- transforms ------------------------------------------------------------------------------------------------------


def test_with_transforms_is_a_copy_that_shares_its_arrays(arrays):
    plain = ImageDataset(*arrays)
    flipped = plain.with_transforms([RandomFlipHorizontal(1)])
    assert type(flipped) is ImageDataset
    assert flipped.arrays[0] is plain.arrays[0]
    same(flipped[:], (arrays[0][..., ::-1], arrays[1]))
    same(plain[:], arrays)
    same(flipped.with_transforms(None)[:], arrays)
    with pytest.raises(TypeError, match=r"^ImageDataset: transforms must be a list of callables, but got 3$"):
        plain.with_transforms(3)


def test_a_part_has_transforms_of_its_own(arrays):
    """Of a split, the images for training are augmented; those for validation are not."""
    train, validation = random_split(ImageDataset(*arrays), [6, 3], seed=0)
    augmented = train.with_transforms([RandomFlipHorizontal(1)])
    indices = train.indices, validation.indices
    same(augmented[:], (arrays[0][indices[0]][..., ::-1], arrays[1][indices[0]]))
    same(train[:], [array[indices[0]] for array in arrays])
    train.transforms = [RandomFlipHorizontal(1)]
    assert len(train.transforms) == 1
    same(train[:], augmented[:])
    same(validation[:], [array[indices[1]] for array in arrays])
    assert validation.transforms == ()


def test_transforms_of_concatenated_datasets(arrays):
    plain = ImageDataset(*arrays)
    crop, flip = RandomCrop(), RandomFlipHorizontal(1)
    both = ConcatDataset([plain.with_transforms([crop]), plain, plain.with_transforms([flip])])
    assert both.transforms == (crop, flip)
    flipped = both.with_transforms([flip])
    same(flipped[:], [np.concatenate([array] * 3) for array in (arrays[0][..., ::-1], arrays[1])])
    assert both.transforms == (crop, flip)
    both.transforms = []
    same(both[:], [np.concatenate([array] * 3) for array in arrays])


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (10, [7, 3]), (10, [0, 10]), (10, [0.8, 0.2]), (11, [0.5, 0.25, 0.25]), (10, [0.7, 0.2, 0.1]),
        (100, [0.29, 0.71]), (7, [1 / 3] * 3), (13, [0.1] * 10), (10, [1.0, 0.0]), (0, [0, 0]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Length of split at index")  # torch's, of an empty part
def test_lengths_are_torch_s(length, lengths):
    parts = random_split(NDArrayDataset(np.arange(length)), lengths, seed=1)
    expected = torch.utils.data.random_split(range(length), lengths)
    assert [len(part) for part in parts] == [len(part) for part in expected]
    assert sorted(np.concatenate([part.indices for part in parts]).tolist()) == list(range(length))


def test_a_split_is_one_permutation_of_the_global_generator_or_of_its_own():
    dataset = NDArrayDataset(np.arange(20))
    np.random.seed(5)
    expected = np.random.permutation(20)
    after = np.random.rand()
    np.random.seed(5)
    first, second = random_split(dataset, [0.5, 0.5])
    assert np.random.rand() == after
    np.testing.assert_array_equal(np.concatenate([first.indices, second.indices]), expected)
    before = np.random.get_state()
    splits = [[part.indices.tolist() for part in random_split(dataset, [15, 5], seed=seed)] for seed in (3, 3, 4)]
    assert splits[0] == splits[1] != splits[2]
    np.testing.assert_equal(np.random.get_state(), before)


# ---- errors ----------------------------------------------------------------------------------------------------------

TEN = NDArrayDataset(np.arange(10))
REFUSED = [
    (lambda: Subset([1, 2], [0]), TypeError, "Subset: dataset must be a Dataset, but got list"),
    (lambda: Subset(TEN, 3), ValueError, "Subset: indices must have shape (N,), but got ()"),
    (lambda: Subset(TEN, [0.5]), TypeError, "Subset: indices must be integers, but got dtype float64"),
    (lambda: Subset(TEN, np.ones(10, bool)), TypeError, "Subset: indices must be integers, but got dtype bool"),
    (lambda: Subset(TEN, [3, 10, 11]), ValueError, "Subset: indices must lie in [0, 9], but got 10"),
    (lambda: Subset(TEN, [-1]), ValueError, "Subset: indices must lie in [0, 9], but got -1"),
    (lambda: ConcatDataset(TEN), TypeError,
     f"ConcatDataset: datasets must be a list of datasets, but got {TEN!r:.100}"),
    (lambda: ConcatDataset([[1]]), TypeError, "ConcatDataset: datasets must be a list of datasets, but got [[1]]"),
    (lambda: ConcatDataset([]), ValueError, "ConcatDataset: datasets must hold at least one, but got none"),
    (
        lambda: ConcatDataset([TEN, NDArrayDataset(np.arange(2), np.arange(2))])[:], ValueError,
        "ConcatDataset: items must agree in their number of fields, but got [1, 2]",
    ),
    (
        lambda: ConcatDataset([TEN, NDArrayDataset(np.zeros((2, 3)))])[:], ValueError,
        "ConcatDataset: items must agree in shape, but field 0 has shapes [(), (3,)]",
    ),
    (lambda: random_split([1], [1]), TypeError, "random_split: dataset must be a Dataset, but got list"),
    (lambda: random_split(TEN, 5), TypeError, "random_split: lengths must be a list of numbers, but got 5"),
    (lambda: random_split(TEN, "55"), TypeError, "random_split: lengths must be a list of numbers, but got '55'"),
    (lambda: random_split(TEN, [5, "5"]), TypeError, "random_split: lengths must be a number, but got '5'"),
    (lambda: random_split(TEN, [11, -1]), ValueError, "random_split: lengths must lie in [0, inf], but got -1"),
    (lambda: random_split(TEN, [5, 4]), ValueError, "random_split: lengths must have the sum 10, but got [5, 4]"),
    (lambda: random_split(TEN, []), ValueError, "random_split: lengths must have the sum 10, but got []"),
    (lambda: random_split(TEN, [0.5, 0.6]), ValueError,
     "random_split: fractions must have the sum 1, but got [0.5, 0.6]"),
    (
        lambda: random_split(TEN, [0.99, 0.01]), ValueError,
        "random_split: a fraction must be one item at least, but got 0.01 of 10 items",
    ),
    (lambda: random_split(TEN, [5, 5], seed=-1), ValueError, "random_split: seed must be at least 0, but got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_nothing_is_drawn_for_refused_lengths():
    before = np.random.get_state()
    with pytest.raises(ValueError, match="sum 10"):
        random_split(TEN, [3, 3])
    np.testing.assert_equal(np.random.get_state(), before)
