"""Linear maps: of the last axis by a weight in torch's layout, and of any axis by a constant matrix."""

from __future__ import annotations

import math

from needle import check, ops
from needle.autograd import Tensor, TensorLike
from needle.ops.arithmetic import ADD
from needle.ops.linalg import MatMul
from needle.ops.linear import affine, fit
from needle.ops.operand import check_broadcast, tensor
from needle.ops.shape import Permute, Reshape

__all__ = ["linear"]


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """x @ weightᵀ + bias: x (…, in), weight (out, in), bias (out,) -> (…, out).

    `weight` has torch's layout, the transpose of `nn.Linear`'s. A weight (in,) maps to (…,). `bias` may be
    of any shape that broadcasts to the result. All operands share one floating dtype.

    Raises `ValueError` if shapes do not fit together, `TypeError` if dtypes or devices do not.
    """
    x, weight = tensor("linear", x), tensor("linear", weight)
    if weight.ndim not in (1, 2) or x.shape[-1:] != weight.shape[-1:]:
        raise ValueError(f"linear: x (…, in) and weight (out, in) are needed, but got {x.shape} and {weight.shape}")
    if bias is None:
        check.floats("linear", x=x, weight=weight)
    else:
        bias = tensor("linear", bias)
        check.floats("linear", x=x, weight=weight, bias=bias)
        check_broadcast("linear", "bias", bias, "result", x.shape[:-1] + weight.shape[:-1])
    w = Permute((1, 0))(weight) if weight.ndim == 2 else weight
    if bias is not None and x.ndim > 1 and fit(w, bias, x.shape[-1]):
        return affine(x, w, bias)
    y = ops.matmul(x, w)
    return y if bias is None else ADD(y, bias)


def matmul_along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis, not the first, by a constant matrix: x (N, …, S, …), matrix (S, P) -> (N, …, P, …).

    In batch-last order the axes after S, and N, are the columns of a single matmul.
    """
    columns = batch_last(x)  # (…, S, …, N)
    before, after = columns.shape[: axis - 1], columns.shape[axis:]
    rows, (s, p) = math.prod(before), matrix.shape
    if math.prod(after) == 1:
        y = MatMul()(Reshape((rows, s))(columns), matrix)
    else:
        y = MatMul()(Permute((1, 0))(matrix), Reshape((rows, s, math.prod(after)))(columns))
    return batch_first(Reshape((*before, p, *after))(y))


def batch_last(x: Tensor) -> Tensor:
    """(N, …) -> (…, N), a view."""
    return Permute((*range(1, x.ndim), 0))(x)


def batch_first(x: Tensor) -> Tensor:
    """(…, N) -> (N, …), a view."""
    return Permute((x.ndim - 1, *range(x.ndim - 1)))(x)
