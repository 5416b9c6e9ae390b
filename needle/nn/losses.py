"""Losses."""

from __future__ import annotations

from needle.nn import functional
from needle.nn.module import Module


class CrossEntropyLoss(Module):
    """The mean of logsumexp(x) - x[target] over the batch: logits (N, C), integers (N,) -> ()."""

    def forward(self, x, target):
        return functional.cross_entropy(x, target)
