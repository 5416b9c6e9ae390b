"""What a report shows of a trained model: which class it takes for which, its mistakes, pictures, its first filters.

Each function reads batches once and keeps little of them, as NumPy arrays: figures need neither the model nor the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

import needle as ndl
from needle import nn

__all__ = ["Mistake", "Pictures", "Results", "classification", "first_filters", "reconstruction", "segmentation"]

Batches = Iterable[tuple[ndl.Tensor, ndl.Tensor, ndl.Tensor]]  # inputs as the network sees them, outputs, targets
Pictures = dict[str, list[np.ndarray]]  # column -> images (C, H, W) of floats, or masks (H, W) of classes


@dataclass
class Mistake:
    """An image (C, *S) of class `actual` that was taken for `predicted`, with that probability."""

    image: np.ndarray
    predicted: int
    actual: int
    probability: float


@dataclass
class Results:
    """The confusion matrix (classes, classes), mistakes, the surest first, and pictures; each may be missing."""

    confusion: np.ndarray | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    pictures: Pictures = field(default_factory=dict)


def classification(batches: Batches, classes: int, keep: int = 18) -> Results:
    """The confusion matrix, and the `keep` surest mistakes: outputs are logits (N, classes), targets (N,)."""
    matrix, mistakes = ndl.metrics.ConfusionMatrix(classes), []
    for images, logits, targets in batches:
        matrix.update(logits, targets)
        probabilities, actual = np.nan_to_num(ndl.softmax(logits, 1).numpy()), targets.numpy()
        predicted, surest = probabilities.argmax(1), probabilities.max(1)
        wrong = np.flatnonzero(predicted != actual)
        if len(wrong):
            wrong = wrong[np.argsort(-surest[wrong], kind="stable")[:keep]]
            pixels = images.numpy()
            found = [Mistake(pixels[i].copy(), int(predicted[i]), int(actual[i]), float(surest[i])) for i in wrong]
            mistakes = sorted(mistakes + found, key=lambda mistake: -mistake.probability)[:keep]
    return Results(matrix.compute(), mistakes)


def reconstruction(batches: Batches, keep: int = 8) -> Results:
    """The first `keep` images (N, C, H, W) beside the outputs of that shape."""
    pictures: Pictures = {"input": [], "output": []}
    for images, outputs, _ in batches:
        _extend(pictures, keep, images, outputs)
        if len(pictures["input"]) == keep:
            break
    return Results(pictures=pictures)


def segmentation(batches: Batches, classes: int, keep: int = 6) -> Results:
    """The confusion matrix of pixels, and the first `keep` images (N, C, H, W) with their masks and the predicted ones.

    Outputs are logits (N, classes, H, W), targets (N, H, W).
    """
    matrix = ndl.metrics.ConfusionMatrix(classes)
    pictures: Pictures = {"input": [], "mask": [], "prediction": []}
    for images, logits, targets in batches:
        matrix.update(logits, targets)
        if len(pictures["input"]) < keep:
            _extend(pictures, keep, images, targets, logits.argmax(1))
    return Results(matrix.compute(), pictures=pictures)


def _extend(pictures: Pictures, keep: int, *columns: ndl.Tensor) -> None:
    """Append the elements of each tensor to a column, up to `keep`."""
    for column, values in zip(pictures.values(), columns, strict=True):
        column += [value.copy() for value in values[: keep - len(column)].numpy()]


def first_filters(model: nn.Module) -> np.ndarray | None:
    """The weight (O, C, *K) of the first convolution of a model; None if it has none."""
    for _, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.weight.numpy()
        if isinstance(module, nn.Conv):  # the course's (K, K, C, O)
            return module.weight.numpy().transpose(3, 2, 0, 1)
    return None
