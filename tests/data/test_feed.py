"""Which datasets are rows of arrays, and the table by which their bytes become floats."""

import numpy as np
import pytest

from needle.data import (
    DataLoader,
    DigitsDataset,
    NDArrayDataset,
    Normalize,
    PixelDataset,
    RandomFlipHorizontal,
    Subset,
)
from needle.data.rows import rows_of

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (23, 3, 6, 5), "uint8")
LABELS = rng.integers(0, 10, 23).astype("int32")
NORMALIZE = (Normalize([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]),)
FLIP = (RandomFlipHorizontal(), *NORMALIZE)


class Shared(NDArrayDataset):
    """Uses the memory of its items again."""

    def take(self, indices):
        self.memory = getattr(self, "memory", [np.empty((8, *a.shape[1:]), a.dtype) for a in self.arrays])
        for memory, array in zip(self.memory, self.arrays, strict=True):
            memory[: len(indices)] = array[indices]
        return tuple(memory[: len(indices)] for memory in self.memory)


FLOATS = PIXELS.astype("float64").transpose(0, 1, 3, 2) / 7  # of any strides
DATASETS = {  # dataset, transforms, whether its items are rows of arrays
    "bytes": (PixelDataset(PIXELS, LABELS), (), True),
    "bytes, normalized": (PixelDataset(PIXELS, LABELS), NORMALIZE, True),
    "bytes without labels": (PixelDataset(PIXELS), NORMALIZE, True),
    "volumes of bytes": (PixelDataset(PIXELS[:, :, None], LABELS), (), True),
    "a part": (Subset(Subset(PixelDataset(PIXELS, LABELS), range(20, 2, -2)), [1, 1, 5, 0, 8, 3]), NORMALIZE, True),
    "bytes that stay bytes": (NDArrayDataset(PIXELS, LABELS), (), True),
    "plain bytes, normalized": (NDArrayDataset(PIXELS, LABELS), NORMALIZE, True),
    "floats": (NDArrayDataset(FLOATS, LABELS, rng.normal(size=(23, 2)) > 0), (), True),
    "digits": (Subset(DigitsDataset(), range(40)), (), True),
    "floats, normalized": (NDArrayDataset(FLOATS, LABELS), NORMALIZE, False),
    "bytes, flipped": (PixelDataset(PIXELS, LABELS), FLIP, False),
    "transforms of items": (PixelDataset(PIXELS, LABELS, transforms=[RandomFlipHorizontal()]), (), False),
    "memory used again": (Shared(PIXELS.astype("float32"), LABELS), (), False),
    "vectors": (NDArrayDataset(rng.normal(size=(11, 4)), LABELS[:11]), (), True),
}


@pytest.mark.parametrize("name", DATASETS)
def test_rows_are_found(name):
    dataset, transforms, is_rows = DATASETS[name]
    rows = rows_of(dataset, transforms)
    assert (rows is not None) == is_rows
    if rows is None:
        return
    numbers = rows.numbers(np.arange(len(dataset)))
    ours = [array[numbers] for array in rows.arrays]
    if rows.table is not None:
        channels = np.arange(ours[0].shape[1]).reshape(-1, *[1] * (ours[0].ndim - 2))
        ours[0] = rows.table[channels, ours[0]]
    (batch,) = DataLoader(dataset, len(dataset), transforms=transforms)
    for mine, theirs in zip(ours, batch, strict=True):
        np.testing.assert_array_equal(mine.astype(theirs.dtype), theirs.numpy())  # bit for bit


class Own(PixelDataset):
    def take(self, indices):
        return super().take(indices)


class OwnTransforms(PixelDataset):
    def apply_transforms(self, x):
        return x


@pytest.mark.parametrize(
    "dataset",
    [Own(PIXELS), OwnTransforms(PIXELS), PixelDataset(PIXELS[:0])],
    ids=["getitem", "apply_transforms", "empty"],
)
def test_other_ways_of_taking_items_are_no_rows(dataset):
    assert rows_of(dataset, ()) is None


@pytest.mark.parametrize("transform", [Normalize([0, 0], [1, 1]), Normalize(0, 1)])
def test_what_a_transform_refuses_is_no_row(transform):
    pixels = PIXELS.transpose(0, 2, 3, 1) if transform.mean.ndim == 0 else PIXELS
    assert rows_of(NDArrayDataset(pixels), (transform,)) is None
