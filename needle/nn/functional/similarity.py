"""Similarity of vectors."""

from __future__ import annotations

from needle import check, ops
from needle.autograd import Tensor, TensorLike
from needle.ops.dtypes import promoted
from needle.ops.operand import broadcast_shape, tensor
from needle.ops.statistics import vector_norm

__all__ = ["cosine_similarity"]


def cosine_similarity(x1: TensorLike, x2: TensorLike, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """⟨x1, x2⟩ / (max(‖x1‖, eps) · max(‖x2‖, eps)) along axis `dim`, which the result lacks.

    x1 and x2 broadcast; `dim` is an axis of the broadcast shape. Squares neither overflow nor vanish.

    Raises `ValueError` if the broadcast shape has no such axis, `TypeError` unless both dtypes are floating.
    """
    op = "cosine_similarity"
    x1 = tensor(op, x1)
    x2 = tensor(op, x2, x1)
    check.floats(op, x1=x1)
    check.floats(op, x2=x2)
    x1, x2 = promoted(op, x1, x2)
    shape = broadcast_shape(op, x1.shape, x2.shape)
    axes = check.reduced_axes(op, check.integer(op, "dim", dim), len(shape), name="dim")
    eps = check.number(op, "eps", eps, least=0)
    if 0 in [shape[axis] for axis in axes]:
        return ops.summation(x1 * x2, axes)
    operands = [ops.broadcast_to(x, shape) for x in (x1, x2)]
    unit1, unit2 = (x / ops.clip(vector_norm(x, 2, axes), eps) for x in operands)
    return ops.summation(unit1 * unit2, axes)
