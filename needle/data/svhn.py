"""SVHN: color photographs of the digits of house numbers, by Y. Netzer et al., in files of MATLAB."""

from __future__ import annotations

from collections.abc import Sequence

from needle import check
from needle.data.dataset import Transform
from needle.data.files import find_file
from needle.data.mat import read_mat
from needle.data.pixels import PixelDataset, check_pixels, class_indices
from needle.files import Path

__all__ = ["SVHNDataset"]

_SOURCE = "SVHN is at http://ufldl.stanford.edu/housenumbers/"


class SVHNDataset(PixelDataset):
    """SVHN, cropped digits: float32 images (3, 32, 32) in [0, 1] and uint8 labels 0 to 9, each its digit.

    `folder` contains `train_32x32.mat`, or that of the `split` "test" or "extra". In the file, the digit 0 has the
    label 10, and the images are the last axis.

    Raises OSError (FileNotFoundError, …) if the file is missing or cannot be read, and ValueError if it is broken, or
    holds other arrays or labels, or there is no such split.

    Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning" (2011).
    """

    def __init__(self, folder: Path, split: str = "train", transforms: Sequence[Transform] | None = None) -> None:
        op = "SVHNDataset"
        check.one_of(op, "split", split, ("train", "test", "extra"))
        path = find_file(op, folder, [f"{split}_32x32.mat"], _SOURCE)
        pixels = check_pixels(op, path, read_mat(path, "X"), "32 x 32 x 3 x N").transpose(3, 2, 0, 1)
        indices = class_indices(op, path, read_mat(path, "y"), (path, pixels), 10, first=1)
        super().__init__(pixels, (indices + 1) % 10, transforms=transforms)
