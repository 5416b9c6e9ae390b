"""Flattening of axes."""

from __future__ import annotations

import math

from needle import check
from needle.autograd import Tensor
from needle.nn.module import Module
from needle.ops import reshape

__all__ = ["Flatten"]


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim` into one: by default (N, *S) -> (N, product of *S).

    Negative axes count from the end. An x that ends before `start_dim` gets one more axis of size 1: (N,) -> (N, 1).
    Any dtype. Raises ValueError if x has no such axes, or if `start_dim` comes after `end_dim`.

    >>> import needle as ndl
    >>> Flatten()(ndl.ones(2, 3, 4, 4)).shape
    (2, 48)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = check.integer("Flatten", "start_dim", start_dim)
        self.end_dim = check.integer("Flatten", "end_dim", end_dim)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == self.start_dim:
            x = reshape(x, (*x.shape, 1))  # no axes to join: their product is 1
        first = check.axis("Flatten", self.start_dim, x.ndim, "start_dim")
        last = check.axis("Flatten", self.end_dim, x.ndim, "end_dim")
        if first > last:
            raise ValueError(
                f"Flatten: start_dim must not come after end_dim, but got {self.start_dim} and {self.end_dim} for "
                f"shape {x.shape}"
            )
        return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
