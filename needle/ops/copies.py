"""Copies: on request, and where a result would be a view of its input although torch's is not."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorLike
from needle.backend import root_of
from needle.grad_mode import mode
from needle.ops.base import Array, Elementwise
from needle.ops.operand import tensor

__all__ = ["clone"]


class Clone(Elementwise):
    """A copy."""

    saved_inputs = ()

    def compute(self, x: Array) -> Array:
        return x.copy()

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return out_grad


CLONE = Clone()


def clone(x: TensorLike) -> Tensor:
    """A copy of x `(*S)` in memory of its own; the gradient flows back."""
    return CLONE(tensor("clone", x))


def apart(y: Tensor, x: Tensor) -> Tensor:
    """y in writable memory of its own: a copy if it is a view of x or repeats elements, so that a write leaves x."""
    return CLONE(y) if mode.outlining else x.own_grad(y, {id(root_of(x.array)): x.array})
