"""The figures of an epoch in words: what a column is called, and how its numbers are written."""

from __future__ import annotations

import math

__all__ = ["is_share", "number", "title"]

PREFIXES = {"train_": "training ", "val_": "validation ", "test_": "test "}
NAMES = {"lr": "learning rate", "psnr": "PSNR", "iou": "IoU", "f1": "F1"}
SHARES = ("accuracy", "precision", "recall", "f1", "iou")


def is_share(name: str) -> bool:
    """Whether a column holds shares from 0 to 1, which are shown in percent."""
    return name.endswith(SHARES)


def title(name: str) -> str:
    """The name of a column in words."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    rest = name.removeprefix(prefix)
    return PREFIXES.get(prefix, "") + NAMES.get(rest, rest.replace("_", " "))


def number(name: str, value: float) -> str:
    """A figure as text, in the form that its name asks for."""
    if not math.isfinite(value):
        return str(value)
    if is_share(name):
        return f"{value:.2%}"
    if name == "epoch" or name.endswith("_per_second"):
        return f"{value:,.0f}"
    return f"{value:.4g}"
