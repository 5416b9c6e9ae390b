"""Parts of a dataset, and several datasets in a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data import generator
from needle.data.dataset import Dataset, Transform, check_index

__all__ = ["ConcatDataset", "Subset", "random_split"]


class Subset(Dataset):
    """The items of `dataset` at `indices` (N,), in their order: item i is `dataset[indices[i]]`.

    A slice or an array of indices returns items stacked. Its transforms are those of its dataset: to set them, or
    `with_transforms`, gives them to a copy of the dataset, so other parts keep theirs.

    Raises TypeError if `dataset` is not a Dataset or the indices are not integers, ValueError if they do not have one
    axis or one does not lie in [0, len(dataset) - 1].

    >>> from needle.data import NDArrayDataset
    >>> part = Subset(NDArrayDataset(np.array([5, 6, 7, 8])), [3, 1])
    >>> len(part), part[0], part[:]
    (2, (np.int64(8),), (array([8, 6]),))
    """

    def __init__(self, dataset: Dataset, indices: Any) -> None:
        self.dataset: Dataset = check.instance("Subset", "dataset", dataset, Dataset)
        given = np.asarray(indices)
        if given.ndim != 1:
            raise ValueError(f"Subset: indices must have shape (N,), but got {given.shape}")
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"Subset: indices must be integers, but got dtype {given.dtype}")
        for wrong in given[(given < 0) | (given >= len(dataset))][:1]:
            raise ValueError(f"Subset: indices must lie in [0, {len(dataset) - 1}], but got {wrong}")
        self.indices: HostArray = given.astype(np.int64)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms of the dataset."""
        return self.dataset.transforms

    @transforms.setter
    def transforms(self, transforms: Sequence[Transform]) -> None:
        self.dataset = self.dataset.with_transforms(transforms)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        check_index("Subset", index)
        chosen = self.indices[index]
        return self.dataset.take(chosen) if chosen.ndim else self.dataset[int(chosen)]

    def take(self, indices: Iterable[int]) -> tuple[HostArray, ...]:
        """The items at B `indices`, stacked field by field, by one `take` of the dataset."""
        return self.dataset.take(self.indices[np.asarray(indices)])


class ConcatDataset(Dataset):
    """The items of all `datasets`, one dataset after the other.

    Items must have the same fields. A slice or an array of indices returns items stacked: one `take` of each dataset.
    To set transforms, or `with_transforms`, gives them to a copy of each dataset.

    Raises TypeError if `datasets` is not a sequence of datasets, ValueError if it is empty; for items that do not fit
    together as `Dataset.take`.

    >>> from needle.data import NDArrayDataset
    >>> both = ConcatDataset([NDArrayDataset(np.array([1, 2])), NDArrayDataset(np.array([3]))])
    >>> len(both), both[2], both[:]
    (3, (np.int64(3),), (array([1, 2, 3]),))
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        if not isinstance(datasets, Sequence) or not all(isinstance(dataset, Dataset) for dataset in datasets):
            raise TypeError(f"ConcatDataset: datasets must be a list of datasets, but got {datasets!r:.100}")
        if not datasets:
            raise ValueError("ConcatDataset: datasets must hold at least one, but got none")
        self.datasets: tuple[Dataset, ...] = tuple(datasets)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """All transforms of the datasets."""
        return tuple(transform for dataset in self.datasets for transform in dataset.transforms)

    @transforms.setter
    def transforms(self, transforms: Sequence[Transform]) -> None:
        self.datasets = tuple(dataset.with_transforms(transforms) for dataset in self.datasets)

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: Any) -> Any:
        check_index("ConcatDataset", index)
        chosen = np.arange(len(self))[index]
        if chosen.ndim:
            return self.take(chosen)
        part, position = self._locate(chosen)
        return self.datasets[int(part)][int(position)]

    def take(self, indices: Iterable[int]) -> tuple[HostArray, ...]:
        """The items at B `indices`, stacked field by field, by one `take` of each dataset that holds some of them."""
        parts, positions = self._locate(np.arange(len(self))[np.asarray(indices)])
        if not len(parts):
            return self.datasets[0].take(positions)
        places = {part: np.flatnonzero(parts == part) for part in np.unique(parts).tolist()}
        taken = [[*map(np.copy, self.datasets[part].take(positions[at]))] for part, at in places.items()]
        if len(counts := {len(fields) for fields in taken}) > 1:
            raise ValueError(f"ConcatDataset: items must agree in their number of fields, but got {sorted(counts)}")
        return tuple(
            _merge(number, pieces, [*places.values()]) for number, pieces in enumerate(zip(*taken, strict=True))
        )

    def _locate(self, indices: HostArray) -> tuple[HostArray, HostArray]:
        """For each index, the number of its dataset and the position there."""
        starts = np.cumsum([0, *map(len, self.datasets)])
        parts = np.searchsorted(starts, indices, side="right") - 1
        return parts, indices - starts[parts]


def _merge(number: int, pieces: tuple[HostArray, ...], places: list[HostArray]) -> HostArray:
    """The rows of some arrays in one array, each at its place."""
    shapes = {piece.shape[1:] for piece in pieces}
    if len(shapes) > 1:
        raise ValueError(f"ConcatDataset: items must agree in shape, but field {number} has shapes {sorted(shapes)}")
    merged = np.empty((sum(map(len, pieces)), *pieces[0].shape[1:]), np.result_type(*pieces))
    for piece, at in zip(pieces, places, strict=True):
        merged[at] = piece
    return merged


def random_split(dataset: Dataset, lengths: Sequence[float], *, seed: int | None = None) -> list[Subset]:
    """Divide the items of a dataset at random: one `Subset` per length, which share no item and have all together.

    `lengths` are integers with the sum len(dataset), or fractions with the sum 1. Of a fraction the integer part is
    taken, and what is left goes one by one to the first parts, as in torch. Draws one permutation from NumPy's global
    generator, or with a `seed` from one of its own: the same seed gives the same parts.

    Raises TypeError if `dataset` is not a Dataset or a length not a number, ValueError if a length is negative, if the
    sum is neither, if a fraction is less than one item, or if `seed` is negative.

    The images for training are augmented, those for validation are not:

    >>> from needle.data import DigitsDataset, RandomCrop
    >>> train, validation = random_split(DigitsDataset(), [0.9, 0.1], seed=0)
    >>> train = train.with_transforms([RandomCrop(1)])
    >>> len(train), len(validation)
    (1298, 144)
    """
    check.instance("random_split", "dataset", dataset, Dataset)
    if not isinstance(lengths, Sequence) or isinstance(lengths, str):
        raise TypeError(f"random_split: lengths must be a list of numbers, but got {lengths!r:.100}")
    counts = _counts(len(dataset), [check.number("random_split", "lengths", x, least=0) for x in lengths], lengths)
    order = (generator.from_seed("random_split", seed) or np.random).permutation(len(dataset))
    return [Subset(dataset, order[start:stop]) for start, stop in pairwise([0, *accumulate(counts)])]


def _counts(length: int, numbers: list[float], given: Sequence[float]) -> list[int]:
    """The lengths as integers, whose sum is `length`."""
    if all(isinstance(number, int | np.integer) for number in given):
        if sum(numbers) != length:
            raise ValueError(f"random_split: lengths must have the sum {length}, but got {[*given]}")
        return [*map(int, numbers)]
    if not math.isclose(sum(numbers), 1):
        raise ValueError(f"random_split: fractions must have the sum 1, but got {[*given]}")
    counts = [math.floor(length * fraction) for fraction in numbers]
    for position in range(length - sum(counts)):
        counts[position % len(counts)] += 1
    for count, fraction in zip(counts, given, strict=True):
        if fraction and not count:
            raise ValueError(
                f"random_split: a fraction must be one item at least, but got {fraction} of {length} items"
            )
    return counts


def may_draw(dataset: Dataset) -> bool:
    """Whether to fetch an item may draw random numbers: by a transform, or in a dataset that is not needle's."""
    if type(dataset) is Subset:
        return may_draw(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return any(map(may_draw, dataset.datasets))
    return bool(dataset.transforms) or not type(dataset).__module__.startswith("needle.data.")
