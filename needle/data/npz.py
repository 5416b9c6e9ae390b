"""Datasets in `.npz` files: Kuzushiji-MNIST, MedMNIST, and any other by the names of its arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from needle import check, npz
from needle.backend import HostArray
from needle.data.dataset import Transform
from needle.data.files import find_file
from needle.data.pixels import PixelDataset, check_pixels, class_indices
from needle.files import Path, open_whole

__all__ = ["KMNISTDataset", "MedMNISTDataset", "read_npz"]

_MOST_CLASSES = 256


def read_npz(path: Path, name: str) -> HostArray:
    """Read the array `name` of a `.npz` file, and no other: of bools or numbers, in native byte order.

    Nothing is unpickled, and memory is bounded by what the file can hold.

    Raises OSError (FileNotFoundError, …) if the file cannot be read, and ValueError if it is cut or changed (its
    checksums tell), has no such array, or one of objects.

    The file `mnist.npz` of Keras holds `x_train`, `y_train`, `x_test` and `y_test`:

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "mnist.npz")
    ...     np.savez(path, x_train=np.zeros((2, 28, 28), np.uint8), y_train=np.array([5, 0], np.uint8))
    ...     dataset = PixelDataset(read_npz(path, "x_train")[:, None], read_npz(path, "y_train"))
    >>> dataset[0][0].shape, dataset.labels
    ((1, 28, 28), array([5, 0], dtype=uint8))
    """
    return _read("read_npz", path, name)[0]


def _read(op: str, path: Path, *names: str) -> list[HostArray]:
    """Arrays of a file, by their names."""
    with open_whole(op, path, f".npz file with {', '.join(names)}") as file:
        arrays, _ = npz.read_npz(file, names)
    return [arrays[name] for name in names]


class KMNISTDataset(PixelDataset):
    """Kuzushiji-MNIST, cursive Japanese characters: float32 images (1, 28, 28) in [0, 1] and uint8 labels.

    `folder` holds `kmnist-train-imgs.npz` and `kmnist-train-labels.npz` (or `-test-`); with the name "k49" those of
    Kuzushiji-49, whose 49 classes differ in size: use `BalancedSampler`. The same images as IDX files are read by
    `IDXDataset`.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError, with the file, if one
    is broken, holds other arrays, or a label that is no class.

    Source: T. Clanuwat et al., "Deep Learning for Classical Japanese Literature" (2018).
    """

    def __init__(
        self, folder: Path, train: bool = True, name: str = "kmnist", transforms: Sequence[Transform] | None = None
    ) -> None:
        op, source = "KMNISTDataset", "Kuzushiji-MNIST is at https://github.com/rois-codh/kmnist"
        classes = {"kmnist": 10, "k49": 49}[check.one_of(op, "name", name, ("kmnist", "k49"))]
        part = "train" if check.instance(op, "train", train, bool) else "test"
        files = [find_file(op, folder, [f"{name}-{part}-{kind}.npz"], source) for kind in ("imgs", "labels")]
        (pixels,), (labels,) = (_read(op, file, "arr_0") for file in files)
        check_pixels(op, files[0], pixels, "N x H x W")
        indices = class_indices(op, files[1], labels, (files[0], pixels), classes)
        super().__init__(pixels[:, None], indices, transforms=transforms)


class MedMNISTDataset(PixelDataset):
    """A set of MedMNIST: float32 images (1, H, W) or (3, H, W), or volumes (1, D, H, W), in [0, 1], and labels.

    `path` names a file such as `pathmnist.npz` or `organmnist3d_64.npz`; `split` is "train", "val" or "test". The
    labels are class indices (N,) of uint8; in the file they are (N, 1). Where an image may have several findings, as in
    ChestMNIST, they are float32 (N, K) of 0 and 1, the targets of `BCEWithLogitsLoss`. Volumes take no transforms.

    Raises OSError (FileNotFoundError, …) if the file cannot be read, and ValueError if it is broken, or lacks the
    split, or holds arrays of other shapes or dtypes.

    Source: J. Yang et al., "MedMNIST v2: a large-scale lightweight benchmark" (2023), https://medmnist.com.
    """

    def __init__(self, path: Path, split: str = "train", transforms: Sequence[Transform] | None = None) -> None:
        op = "MedMNISTDataset"
        check.one_of(op, "split", split, ("train", "val", "test"))
        pixels, labels = _read(op, path, f"{split}_images", f"{split}_labels")
        if pixels.ndim == 4 and pixels.shape[-1] == 3:
            images = check_pixels(op, path, pixels, "N x H x W x 3").transpose(0, 3, 1, 2)
        else:
            images = check_pixels(op, path, pixels, "N x D x H x W" if pixels.ndim == 4 else "N x H x W")[:, None]
        if labels.ndim == 2 and labels.shape[1] > 1:
            targets = _findings(op, path, labels, len(pixels))
        else:
            targets = class_indices(op, path, labels, (path, pixels), _MOST_CLASSES)
        super().__init__(images, targets, transforms=transforms)


def _findings(op: str, path: Path, labels: HostArray, count: int) -> HostArray:
    """Labels (N, K) of 0 and 1 as float32."""
    if len(labels) != count or labels.dtype.kind not in "iub" or not ((labels == 0) | (labels == 1)).all():
        raise ValueError(
            f"{op}: labels of several classes must be {count} x K zeros and ones, "
            f"but {path} holds {labels.dtype} of shape {labels.shape}, up to {labels.max(initial=0)}"
        )
    return labels.astype(np.float32)
