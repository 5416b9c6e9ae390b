"""The cost of `fit` with a run folder, a metric and a progress bar, against a bare loop, per step of LeNet.

`python -m tests.training.overhead` trains two equal networks in turn, a step with `fit` and a step of the bare loop,
and prints the median of their times and of the quotient of each pair; and the time of a checkpoint.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import needle as ndl
from apps.models import LeNet
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset
from needle.metrics import Accuracy

BATCH, BATCHES, EPOCHS = 64, 200, 4


def parts():
    """A network, its loss and optimizer, and a loader of random images."""
    ndl.seed(0)
    images = np.random.rand(BATCH * BATCHES, 1, 28, 28).astype("float32")
    loader = DataLoader(NDArrayDataset(images, np.random.randint(0, 10, len(images))), BATCH, shuffle=True)
    model = LeNet((1, 28, 28), 10)
    return model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.001), loader


def bare_steps():
    """A generator: each `next` makes one step."""
    model, loss_fn, optimizer, loader = parts()
    while True:
        for images, labels in loader:
            optimizer.reset_grad()
            loss_fn(model(images), labels).backward(create_graph=False)
            optimizer.step()
            yield


class Pairs:
    """A callback that makes a bare step after each step, and notes the times of both."""

    def __init__(self):
        self.bare, self.times, self.end = bare_steps(), [], None

    def on_epoch_start(self, state):
        self.end = None

    def on_step(self, state):
        start = time.perf_counter()
        next(self.bare)
        stop = time.perf_counter()
        if self.end is not None:
            self.times.append((start - self.end, stop - start))
        self.end = time.perf_counter()


class Terminal(io.StringIO):
    """A terminal that nobody reads."""

    def isatty(self):
        return True


def main():
    pairs = Pairs()
    *arguments, loader = parts()
    with tempfile.TemporaryDirectory() as folder:
        error, sys.stderr = sys.stderr, Terminal()
        training.fit(
            *arguments, loader, epochs=EPOCHS, metrics={"accuracy": Accuracy()}, checkpoints=folder,
            callbacks=[pairs], bar=True,
        )  # fmt: skip
        sys.stderr = error
        state, start = ndl.load(Path(folder, "last.npz")), time.perf_counter()
        ndl.save(Path(folder, "again.npz"), state)
        saved = time.perf_counter() - start
    fitted, bare = zip(*pairs.times[20:], strict=True)
    ratios = [mine / theirs for mine, theirs in pairs.times[20:]]
    sys.stdout.write(
        f"{len(ratios)} pairs: fit {statistics.median(fitted) * 1e3:.3f} ms, bare {statistics.median(bare) * 1e3:.3f}, "
        f"median of quotients {statistics.median(ratios):.4f}; a checkpoint takes {saved * 1e3:.1f} ms\n"
    )


if __name__ == "__main__":
    main()
