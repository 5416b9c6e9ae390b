"""The handwritten digits that ship with the package, in `digits.npz`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from needle import check
from needle.data.dataset import ImageDataset, Transform

__all__ = ["DigitsDataset"]


class DigitsDataset(ImageDataset):
    """1,797 handwritten digits: float32 images (1, 8, 8) in [0, 1] and uint8 labels 0 to 9.

    Every fifth digit of each class, in file order, belongs to the test set: 1,442 digits for training, 355 for testing.
    The same 13 people wrote both sets, so the test measures new digits, not new handwriting.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49 (its test set), licensed CC BY 4.0; see DIGITS_LICENSE.txt beside this file.
    """

    def __init__(self, train: bool = True, transforms: Sequence[Transform] | None = None) -> None:
        check.instance("DigitsDataset", "train", train, bool)
        with np.load(os.path.join(os.path.dirname(__file__), "digits.npz"), allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        held_out = np.zeros(len(labels), bool)
        for digit in range(10):
            held_out[np.flatnonzero(labels == digit)[4::5]] = True
        selected = ~held_out if train else held_out
        pixels = np.divide(images[selected, None], 16, dtype=np.float32)
        super().__init__(pixels, labels[selected], transforms=transforms)
