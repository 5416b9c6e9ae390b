"""The triangles of matrices."""

from __future__ import annotations

from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import xp
from needle.ops.base import Array, Elementwise
from needle.ops.operand import tensor

__all__ = ["tril", "triu"]


class Triangle(Elementwise):
    """The lower ("tril") or upper ("triu") triangle of the last two axes, up to a diagonal; zeros elsewhere."""

    saved_inputs, is_elementwise = (), False

    def __init__(self, name: str, diagonal: int) -> None:
        self.name, self.diagonal = name, diagonal

    def compute(self, x: Array) -> Array:
        return getattr(xp(x), self.name)(x, self.diagonal)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)


def tril(x: TensorLike, diagonal: int = 0) -> Tensor:
    """The lower triangles of matrices, zeros above: `(*B, n, m) -> (*B, n, m)`.

    Element (i, j) stays if j - i <= `diagonal`. Raises `ValueError` for fewer than 2 axes, `TypeError` unless
    `diagonal` is an integer.
    """
    return _triangle("tril", x, diagonal)


def triu(x: TensorLike, diagonal: int = 0) -> Tensor:
    """The upper triangles of matrices, zeros below: element (i, j) stays if j - i >= `diagonal`. As `tril`."""
    return _triangle("triu", x, diagonal)


def _triangle(op: str, x: TensorLike, diagonal: int) -> Tensor:
    x = tensor(op, x)
    if x.ndim < 2:
        raise ValueError(f"{op}: x must have at least 2 axes, but got shape {x.shape}")
    rows, columns = x.shape[-2:]
    return Triangle(op, max(-rows, min(check.integer(op, "diagonal", diagonal), columns)))(x)
