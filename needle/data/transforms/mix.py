"""Transforms that mix the images of a batch, and their labels in the same proportion."""

from __future__ import annotations

import math

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import BatchTransform, Fields, steps

__all__ = ["CutMix", "MixUp"]


class MixUp(BatchTransform):
    """Mix each image with another of its batch: images (N, C, H, W) of floats, labels (N,) -> probabilities (N, K).

    An image x becomes λ x + (1 - λ) x', and its target λ y + (1 - λ) y', with x' and y' those of a random permutation
    of the batch, and one λ ~ Beta(alpha, alpha) per batch. The targets, float32, are what `cross_entropy` takes.
    Labels are integers below K = `num_classes`, or probabilities already.

    Raises ValueError if `num_classes` is less than 1, `alpha` not in (0, 1000], a label not below K, or if a batch is
    not of images and labels, TypeError if the images are not of floats.
    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """

    draws = 2  # the order of the permutation, and in the first item the seed of λ
    mixes = True

    def __init__(self, num_classes: int, alpha: float = 1.0) -> None:
        op = type(self).__name__
        self.num_classes = check.integer(op, "num_classes", num_classes, least=1)
        self.alpha = check.number(op, "alpha", alpha, above=0, most=1000)

    def apply(self, fields: Fields, numbers: HostArray) -> Fields:
        images, targets = self._checked(fields)
        if images.dtype.kind != "f":
            raise TypeError(f"MixUp: images must be of floats, but got {images.dtype}; Normalize them before")
        if not len(images):
            return images, targets
        others, share = np.argsort(numbers[:, 0]), np.float32(1 - self._keep(numbers))
        return tuple(field + share.astype(field.dtype) * (field[others] - field) for field in (images, targets))

    def _keep(self, numbers: HostArray) -> float:
        """λ. How many numbers a beta variate takes is not known before, so it has a generator of its own."""
        return float(np.random.default_rng(int(numbers[0, 1] * 2**53)).beta(self.alpha, self.alpha))

    def _checked(self, fields: Fields) -> Fields:
        """Images and targets (N, K), float32."""
        op, classes = type(self).__name__, self.num_classes
        shapes = [field.shape for field in fields]
        if len(fields) != 2 or len(shapes[0]) != 4 or shapes[1] not in (shapes[0][:1], (len(fields[0]), classes)):
            raise ValueError(
                f"{op}: a batch must be images N x C x H x W and labels N or N x {classes}, but got shapes {shapes}"
            )
        images, labels = fields
        if labels.ndim == 2:
            return images, labels.astype(np.float32, copy=False)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{op}: labels must be integers, but got {labels.dtype}")
        for wrong in labels[(labels < 0) | (labels >= classes)][:1]:
            raise ValueError(f"{op}: labels must lie in [0, {classes - 1}], but got {wrong}")
        return images, (labels[:, None] == np.arange(classes)).astype(np.float32)


class CutMix(MixUp):
    """Cut a box out of each image and fill it from another of its batch: labels (N,) -> probabilities (N, K).

    The box is the same in all images of a batch: its area is 1 - λ of an image, λ ~ Beta(alpha, alpha), and its center
    is drawn from all pixels. A target is that of the image and of the other, in the proportion of their areas. Images
    keep their dtype; otherwise as in `MixUp`.

    Raises what `MixUp` raises.
    Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, 2019.
    """

    draws = 4  # as before, and in the first item the center of the box

    def apply(self, fields: Fields, numbers: HostArray) -> Fields:
        images, targets = self._checked(fields)
        if not len(images):
            return images, targets
        others, side = np.argsort(numbers[:, 0]), math.sqrt(1 - self._keep(numbers))
        rows, columns = (
            slice(max(0, center - half), min(n, center + half))
            for n, center, half in (
                (n, int(steps(n, numbers[0, i])), int(n * side) // 2) for i, n in enumerate(images.shape[2:], 2)
            )
        )
        result = images.copy()
        result[:, :, rows, columns] = images[others, :, rows, columns]
        share = np.float32(result[0, 0, rows, columns].size / result[0, 0].size)
        return result, targets + share * (targets[others] - targets)
