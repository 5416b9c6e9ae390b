"""The small set of handwritten digits that comes with the package, in `digits.npz`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from needle.data.dataset import ImageDataset, Transform


class DigitsDataset(ImageDataset):
    """Images (1, 8, 8) of float32 in 0..1 and their uint8 labels: 1,797 handwritten digits, split in two.

    Of each of the ten classes every fifth digit, in the order of the file, is held out for the test: 1,442 digits to
    train on and 355 to test with. The same 13 people wrote both, so that the test is of new digits, not of new hands.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49 (its test set), licensed CC BY 4.0; see DIGITS_LICENSE.txt beside this file.
    """

    def __init__(self, train: bool = True, transforms: Sequence[Transform] | None = None):
        with np.load(os.path.join(os.path.dirname(__file__), "digits.npz"), allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        held_out = np.zeros(len(labels), bool)
        for digit in range(10):
            held_out[np.flatnonzero(labels == digit)[4::5]] = True
        chosen = ~held_out if train else held_out
        pixels = np.divide(images[chosen, None], 16, dtype=np.float32)
        super().__init__(pixels, labels[chosen], transforms=transforms)
