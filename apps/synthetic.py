"""Small synthetic data in the file formats of CIFAR-10 and of the Penn Treebank, for runs without a download."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

__all__ = ["write_cifar10", "write_ptb"]

SUBJECTS = {
    "the": ["bank", "market", "company"],
    "many": ["banks", "markets", "companies"],
}
VERBS = {
    "the": ["buys", "sells", "watches"],
    "many": ["buy", "sell", "watch"],
}
OBJECTS = ["shares", "bonds", "goods", "nothing"]


def write_cifar10(folder: Path, per_file: int = 100) -> None:
    """Write CIFAR-10's six files with `per_file` images each: one color pattern per class, shifted and noisy."""
    draw = np.random.default_rng(0)
    patterns = draw.integers(64, 192, (10, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = draw.permutation(np.arange(per_file) % 10)
        shifts = draw.integers(-4, 5, (per_file, 2))
        images = [np.roll(patterns[label], shift, (1, 2)) for label, shift in zip(labels, shifts, strict=True)]
        noisy = np.clip(images + draw.normal(0, 40, (per_file, 3, 32, 32)), 0, 255)
        content = {b"data": noisy.reshape(per_file, -1).astype(np.uint8), b"labels": labels.tolist()}
        with open(folder / name, "wb") as file:
            pickle.dump(content, file, protocol=2)


def write_ptb(folder: Path) -> None:
    """Write the treebank's `train.txt` and `test.txt`: 600 and 150 sentences whose verbs agree with their subjects.

    There are 2·3·3·4 = 72 different sentences of 5 words, counting the end of the line. So no model that generalizes
    has a perplexity below 72^(1/5) = 2.35.
    """
    draw = np.random.default_rng(0)
    for name, count in (("train.txt", 600), ("test.txt", 150)):
        lines = []
        for number in draw.choice(list(SUBJECTS), count):
            words = (draw.choice(choices) for choices in (SUBJECTS[number], VERBS[number], OBJECTS))
            lines.append(f" {number} {' '.join(words)} \n")
        (folder / name).write_text("".join(lines), "utf-8")
