"""What the scripts train networks for: the loss, the figures and the line of an epoch of each task, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import needle as ndl
from needle import nn
from needle.distributed import Part, current_communicator
from needle.metrics import Accuracy, IoU, Metric

__all__ = ["TASKS", "Task", "ink", "noisy", "perplexity", "psnr"]

Batch = tuple[ndl.Tensor, ndl.Tensor]
FORMATS = {"loss": ".4f", "accuracy": ".2%", "iou": ".2%", "psnr": ".2f", "perplexity": ".2f"}
NOISE = 0.3  # standard deviation, where pixels lie in [0, 1]


def as_they_are(batch: Batch, is_training: bool) -> Batch:
    """Inputs and targets are those of the loader."""
    return batch


@dataclass(frozen=True)
class Task:
    """The loss and the figures of an epoch; names of figures are those of `FORMATS`.

    `best` is the figure of a row that tells the best epoch, by "max" or "min". `derived` figures follow from the loss.
    """

    figures: tuple[str, ...]  # those to show
    best: str
    mode: str
    loss: Callable[[float], nn.Module]  # from the label smoothing
    metrics: Callable[[int], dict[str, Metric]] = lambda classes: {}  # from the number of classes
    derived: Mapping[str, Callable[[float], float]] = field(default_factory=dict)
    prepare: Callable[[Batch, bool], Batch] = as_they_are  # a batch, whether to train on it -> inputs and targets
    shows_loss: bool = False  # of the held-out set

    def forward(self, model: nn.Module, batch: Batch) -> Batch:
        """What the model makes of the inputs, and the targets."""
        inputs, targets = self.prepare(batch, model.training)
        return model(inputs), targets

    def __reduce__(self) -> Any:
        """Workers find the task in their own table."""
        return task_named, (next(name for name, task in TASKS.items() if task is self),)

    def complete(self, row: Mapping[str, float]) -> dict[str, float]:
        """A row of `fit`, or the figures of `evaluate`, with the derived ones."""
        row = dict(row)
        for name, derive in self.derived.items():
            for loss, figure in (("loss", f"train_{name}" if "epoch" in row else name), ("val_loss", f"val_{name}")):
                if loss in row:
                    row[figure] = derive(row[loss])
        return row

    def line(self, row: Mapping[str, float], split: str) -> str:
        """The figures of a row in words; `split` names the held-out set."""
        held = {f"val_{name}": f"{split} {name}" for name in ("loss",) * self.shows_loss + self.figures}
        names = {"loss": "loss", **{f"train_{name}": f"train {name}" for name in self.figures}, **held}
        return ", ".join(f"{words} {shown(name, row[name])}" for name, words in names.items())

    def test_line(self, figures: Mapping[str, float]) -> str:
        """Figures of the test set in words."""
        return ", ".join(f"test {name} {shown(name, figures[name])}" for name in ("loss", *self.figures))


def shown(name: str, value: float) -> str:
    """A figure as text, by the last part of its name."""
    return format(value, FORMATS[name.rpartition("_")[2]])


# ---- images from images ----------------------------------------------------------------------------------------------


def reconstruct(batch: Batch, is_training: bool) -> Batch:
    """Images (N, C, H, W) are their own targets."""
    images, _ = batch
    return images, images


def segment(batch: Batch, is_training: bool) -> Batch:
    """Noisy images (N, C, H, W), and which pixels of the clean ones are ink (N, H, W).

    Ink is what is brighter than the mean of its clean image. The noise is normal, drawn from NumPy's global generator
    in training, and always the same in evaluation.
    """
    images, _ = batch
    return noisy(images, is_training), ink(images)


def ink(images: ndl.Tensor) -> ndl.Tensor:
    """1 where a pixel is brighter than the mean of its image, else 0: (N, C, H, W) -> int64 (N, H, W)."""
    gray = images.mean(1)
    return ndl.greater(gray, gray.mean((1, 2)).reshape((len(gray), 1, 1))).astype("int64")


def noisy(images: ndl.Tensor, is_training: bool) -> ndl.Tensor:
    """Images with normal noise, each time other noise in training; of several workers each draws that of all images."""
    draw: Any = np.random if is_training else np.random.default_rng(0)
    part = current_communicator().part or Part(0, len(images), len(images))
    drawn = draw.standard_normal((part.total, *images.shape[1:]))[part.start : part.stop]
    noise = drawn.astype(images.dtype) * NOISE
    return images + ndl.Tensor(noise, device=images.device, requires_grad=False)


def psnr(loss: float) -> float:
    """Peak signal-to-noise ratio in decibels of images in [0, 1], from the mean squared error."""
    return -10 * math.log10(loss) if loss > 0 else math.inf


# ---- the table -------------------------------------------------------------------------------------------------------


def perplexity(loss: float) -> float:
    """exp(loss): the number of equally likely words that would leave a model as uncertain."""
    return math.exp(loss) if not loss > 700 else math.inf


def cross_entropy(smoothing: float) -> nn.Module:
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


TASKS = {
    "classification": Task(
        ("accuracy",), "val_accuracy", "max", cross_entropy, lambda classes: {"accuracy": Accuracy()}
    ),
    "segmentation": Task(
        ("iou", "accuracy"),
        "val_iou",
        "max",
        cross_entropy,
        lambda classes: {"accuracy": Accuracy(), "iou": IoU(classes)},
        prepare=segment,
    ),
    "reconstruction": Task(
        ("psnr",), "val_loss", "min", lambda smoothing: nn.MSELoss(), derived={"psnr": psnr}, prepare=reconstruct
    ),
    "language": Task(
        ("perplexity", "accuracy"),
        "val_loss",
        "min",
        cross_entropy,
        lambda classes: {"accuracy": Accuracy()},
        derived={"perplexity": perplexity},
        shows_loss=True,
    ),
}


def task_named(name: str) -> Task:
    """The task of this name."""
    return TASKS[name]
