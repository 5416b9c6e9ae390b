"""The training loop of the apps: one pass, a run of epochs, and the figures of a run.

`pass_over` computes loss and accuracy over batches, with an optimizer step after each if there is an optimizer. `fit`
alternates training and test passes for a number of epochs and hands one row of figures per epoch to `Metrics`. `Images`
and `Text` feed a model: they yield the pair (logits, targets) of each batch.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import needle as ndl
from needle import nn, optim

__all__ = ["Images", "Metrics", "Row", "Text", "fit", "pass_over", "step"]

LossFunction = Callable[[ndl.Tensor, ndl.Tensor], ndl.Tensor]
Outputs = Iterable[tuple[ndl.Tensor, ndl.Tensor]]  # logits (N, classes) and targets (N,) of each batch
Row = dict[str, float]


# ---- data ------------------------------------------------------------------------------------------------------------


class Images:
    """Labelled images; `loader` yields batches of images (N, C, H, W) and labels (N,)."""

    unit = "images"

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.loader)

    @property
    def items(self) -> int:
        """The number of images."""
        return len(self.loader.dataset)

    def outputs(self, model: nn.Module) -> Iterator[tuple[ndl.Tensor, ndl.Tensor]]:
        """Yield logits (N, classes) and labels (N,) of each batch."""
        return ((model(images), labels) for images, labels in self.loader)


class Text:
    """Word ids (T, B) from `batchify`: each column is a text, read `seq_len` rows at a time."""

    unit = "words"

    def __init__(self, data: Any, seq_len: int = 40, device: Any = None, dtype: str = "float32") -> None:
        self.data, self.seq_len, self.device, self.dtype = data, seq_len, device, dtype

    def __len__(self) -> int:
        """The number of batches: the last one may have fewer rows."""
        return -(-(len(self.data) - 1) // self.seq_len)

    @property
    def items(self) -> int:
        """The number of words."""
        return self.data.size

    def outputs(self, model: nn.Module) -> Iterator[tuple[ndl.Tensor, ndl.Tensor]]:
        """Yield logits (S·B, words) and the next words (S·B,) for each S <= `seq_len` rows.

        The model's state starts as None. It is carried from batch to batch, detached: gradients stop at a batch's start
        (truncated backpropagation through time).
        """
        state = None
        for start in range(0, len(self.data) - 1, self.seq_len):
            words, next_words = ndl.data.get_batch(self.data, start, self.seq_len, device=self.device, dtype=self.dtype)
            logits, state = model(words, state)
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
            yield logits, next_words


# ---- the loop --------------------------------------------------------------------------------------------------------


def step(loss: ndl.Tensor, opt: optim.Optimizer, clip: float | None = None) -> None:
    """Update the parameters from the gradients of `loss`; `clip` bounds the norm of all gradients together."""
    opt.reset_grad()
    loss.backward(create_graph=False)
    if clip is not None:
        opt.clip_grad_norm(clip)
    opt.step()


def pass_over(
    model: nn.Module,
    outputs: Outputs,
    loss_fn: LossFunction,
    opt: optim.Optimizer | None = None,
    clip: float | None = None,
) -> tuple[float, float]:
    """Accuracy and mean loss over all targets: in training mode with a step per batch, or in evaluation without `opt`.

    `outputs` must compute each batch lazily, because the steps change the model in between. A batch is measured by
    its logits before its step. Evaluation records no graph.

    Raises ValueError if `outputs` is empty.
    """
    model.train(opt is not None)
    batches = []  # hits and losses stay on the device: reading a number there waits for all queued work
    with ndl.no_grad() if opt is None else nullcontext():
        for logits, targets in outputs:
            loss = loss_fn(logits, targets)
            if opt is not None:
                step(loss, opt, clip)
            batches.append((ndl.equal(logits.argmax(1), targets).sum(), loss.detach(), len(targets)))
    if not batches:
        raise ValueError("pass_over: outputs must yield at least one batch, but yielded none")
    count = sum(size for _, _, size in batches)
    accuracy = sum(hits.item() for hits, _, _ in batches) / count
    return accuracy, sum(loss.item() * size for _, loss, size in batches) / count


def fit(
    model: nn.Module,
    train: Images | Text,
    test: Images | Text,
    loss_fn: LossFunction,
    opt: optim.Optimizer,
    metrics: Metrics,
    epochs: int,
    clip: float | None = None,
) -> list[Row]:
    """Train for `epochs` passes over `train`, with a pass over `test` after each; returns the rows of `metrics`.

    The figures of an epoch are `epoch`, `loss`, `train_accuracy`, `test_loss`, `test_accuracy`, and the speed of the
    training pass as `images_per_second` or `words_per_second`.
    """
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        train_accuracy, loss = pass_over(model, progress(train.outputs(model), len(train)), loss_fn, opt, clip)
        speed = train.items / (time.perf_counter() - start)
        test_accuracy, test_loss = pass_over(model, test.outputs(model), loss_fn)
        metrics.add({
            "epoch": epoch,
            "loss": loss,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            f"{train.unit}_per_second": speed,
        })  # fmt: skip
    return metrics.rows


def progress(outputs: Outputs, total: int) -> Outputs:
    """`outputs`, with a progress bar of `total` batches if stderr is a terminal and tqdm is installed."""
    if sys.stderr is None or not sys.stderr.isatty():
        return outputs
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return outputs
    return tqdm(outputs, total=total, unit="batch", leave=False)


# ---- the figures of a run --------------------------------------------------------------------------------------------


class Metrics:
    """Rows of figures, one per epoch: kept in `rows`, printed as lines, and appended to a CSV file if there is one.

    `columns` selects and orders the figures of a row; `line` is a format string with these names.
    """

    def __init__(self, columns: Sequence[str], line: str) -> None:
        self.columns, self.line = columns, line
        self.rows: list[Row] = []
        self.path: Path | None = None

    def write_to(self, folder: Path | None) -> None:
        """Start a new metrics.csv in `folder`, which is created if missing; None writes no file."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / "metrics.csv"
            self._write("w", self.columns)

    def add(self, figures: Row) -> None:
        """Add a row. The file gets it first, so that it holds every row that was printed."""
        row = {name: figures[name] for name in self.columns}
        self._write("a", row.values())
        self.rows.append(row)
        print(self.line.format_map(row), flush=True)

    def progress(self, epochs: int) -> str:
        """How many of `epochs` are complete."""
        return f" after {len(self.rows)} of {epochs} epochs"

    def _write(self, mode: str, cells: Iterable[Any]) -> None:
        if self.path is not None:
            with open(self.path, mode, newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(cells)
