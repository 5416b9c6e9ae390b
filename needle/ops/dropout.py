"""Dropout as one op, whose gradient draws the same numbers again."""

from __future__ import annotations

from typing import Any

from needle import kernels
from needle.autograd import Tensor
from needle.kernels import Draws
from needle.ops.base import Array, Elementwise

__all__ = ["Drop"]


class Drop(Elementwise):
    """x / (1 - p) where the number of an element is at most 1 - p, elsewhere 0·x."""

    saved_inputs = ()
    is_elementwise = False  # the number of an element depends on its place

    def __init__(self, p: float, draws: Draws) -> None:
        self.p, self.draws = p, draws

    def compute(self, x: Array) -> Array:
        return kernels.drop(x, self.p, self.draws)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)
