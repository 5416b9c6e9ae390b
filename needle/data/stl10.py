"""STL-10: photographs of 96x96 pixels in ten classes, and 100,000 without a class, by A. Coates, H. Lee and A. Ng.

The files of https://cs.stanford.edu/~acoates/stl10 have no header: images of 27,648 bytes, the three channels one after
the other, each by columns; and labels of one byte from 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from needle import check
from needle.data.binary import map_array
from needle.data.dataset import Transform
from needle.data.files import find_file
from needle.data.pixels import PixelDataset, check_pixels, class_indices
from needle.files import file_status

__all__ = ["STL10Dataset"]

_SHAPE = (3, 96, 96)
_SOURCE = "STL-10 is at https://cs.stanford.edu/~acoates/stl10"


class STL10Dataset(PixelDataset):
    """STL-10: float32 images (3, 96, 96) in [0, 1], upright, and uint8 labels 0 to 9.

    `folder` contains `train_X.bin` and `train_y.bin`, or those of the `split` "test", or `unlabeled_X.bin`; or it
    contains the unpacked folder `stl10_binary`. Items of the split "unlabeled" have no label: `(image,)`. The images
    are mapped, and read as they are taken. `classes` are the names of the classes. The ten folds of the training set
    are lines of `fold_indices.txt`, for `Subset`.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError if it does not consist
    of such images or labels, or there is no such split.
    """

    classes = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

    def __init__(
        self, folder: str | os.PathLike[str], split: str = "train", transforms: Sequence[Transform] | None = None
    ) -> None:
        op = "STL10Dataset"
        check.one_of(op, "split", split, ("train", "test", "unlabeled"))
        names = [f"{split}_X.bin"] if split == "unlabeled" else [f"{split}_X.bin", f"{split}_y.bin"]
        paths = [find_file(op, folder, [name, f"stl10_binary/{name}"], _SOURCE) for name in names]
        size, each = file_status(op, paths[0]).st_size, math.prod(_SHAPE)
        count, over = divmod(size, each)
        if over:
            raise ValueError(f"{op}: images must have {each} bytes each, but {paths[0]} has {size} bytes, {over} over")
        pixels = check_pixels(op, paths[0], map_array(op, paths[0], np.uint8, (count, *_SHAPE)), "N x 3 x 96 x 96")
        labels = None
        for path in paths[1:]:
            stored = map_array(op, path, np.uint8, (file_status(op, path).st_size,))
            labels = class_indices(op, path, stored, (paths[0], pixels), len(self.classes), first=1)
        super().__init__(pixels.swapaxes(2, 3), labels, transforms=transforms)
