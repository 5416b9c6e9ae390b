"""Integers as vectors: rows of a table, and one-hot rows."""

from __future__ import annotations

from functools import lru_cache

from needle import check, init, ops
from needle.autograd import Tensor, TensorLike
from needle.backend import Device
from needle.ops.operand import as_indices, check_range, tensor

__all__ = ["embedding", "one_hot"]


def embedding(x: TensorLike, weight: TensorLike, padding_idx: int | None = None) -> Tensor:
    """Rows of a table: integers x (*I) in [0, n), of any dtype, and weight (n, d) -> (*I, d).

    Row `padding_idx` receives no gradient; a negative index counts from the end.

    Raises `ValueError` if an integer is out of range (checked on the CPU only) or `weight` is not a matrix, `TypeError`
    if x holds bools.

    >>> import needle as ndl
    >>> embedding(ndl.Tensor([2, 0]), ndl.Tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])).numpy().tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """
    x, weight = tensor("embedding", x), tensor("embedding", weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight must be a matrix (n, d), but got shape {weight.shape}")
    if padding_idx is not None:
        padding_idx = check.axis("embedding", padding_idx, weight.shape[0], "padding_idx")
    indices = as_indices("embedding", "indices", x, weight.shape[0])
    rows = ops.getitem(weight, indices)
    if padding_idx is None:
        return rows
    is_padding = ops.getitem(_is_row(weight.shape[0], padding_idx, x.device), indices)  # (*I, 1)
    return ops.where(is_padding, rows.detach(), rows)


@lru_cache(maxsize=32)
def _is_row(n: int, row: int, device: Device) -> Tensor:
    """Bools (n, 1), true at `row`."""
    return ops.reshape(ops.equal(init.arange(n, device=device), row), (n, 1))


def one_hot(x: TensorLike, num_classes: int = -1) -> Tensor:
    """One-hot rows: integers x (*I) in [0, num_classes), of any dtype -> int64 (*I, num_classes).

    By default `num_classes` is the largest integer plus 1.

    Raises `ValueError` if an integer is out of range (checked on the CPU only) or if x is empty and `num_classes` is
    not passed, `TypeError` if x holds bools.
    """
    x = tensor("one_hot", x)
    indices = as_indices("one_hot", "indices", x)
    n = check.integer("one_hot", "num_classes", num_classes, least=-1)
    if n == -1:
        if not x.size:
            raise ValueError(f"one_hot: num_classes must be passed for an empty x, but got x of shape {x.shape}")
        n = max(int(indices.numpy().max()) + 1, 1)
    if n:
        return ops.one_hot(n, indices, "int64")
    check_range("one_hot", "indices", indices, 0, -1)
    return init.zeros(*x.shape, 0, device=x.device, dtype="int64")
