"""Losses of pairs and triplets of embeddings or scores, under torch's names.

`reduction` is `"mean"`, `"sum"` (both of shape ()) or `"none"` (a loss per pair or triplet). The result has the widest
dtype of the operands; float16 is computed in float32. The mean of an empty batch is refused. Derivatives where a hinge
max(0, z) has z = 0 are those of z, as in torch.
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn.functional.reduction import check_reduction, float_operands, float_target, reduced
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, AddScalar, as_dtype
from needle.ops.elementwise import Clip, Minimum, Sqrt
from needle.ops.logic import EQUAL, NOT_EQUAL, WHERE
from needle.ops.operand import broadcast_shape, scalar_like, tensor
from needle.ops.reduce import Summation
from needle.ops.shape import Reshape
from needle.ops.statistics import vector_norm

__all__ = ["cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "triplet_margin_loss"]

_HINGE = Clip(0, None)


def hinge_embedding_loss(x: TensorLike, target: TensorLike, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where `target` is 1, max(0, margin - x) where it is -1, for distances x; both broadcast.

    Any other target adds both. Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the
    dtype of x is floating.

    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (2006), equation 4.
    """
    op = "hinge_embedding_loss"
    target = as_dtype(float_target(op, target, x), tensor(op, x).dtype)
    (x, target), dtype = float_operands(op, x=x, target=target)
    shape = broadcast_shape(op, x.shape, target.shape)
    margin = check.number(op, "margin", margin)
    check_reduction(op, x, reduction, shape)
    zero = scalar_like(0, x)
    far = WHERE(NOT_EQUAL(target, scalar_like(1, x)), _HINGE(AddScalar(margin)(NEGATE(x))), zero)
    near = WHERE(NOT_EQUAL(target, scalar_like(-1, x)), x, zero)
    return as_dtype(reduced(ADD(far, near), reduction), dtype)


def margin_ranking_loss(
    x1: TensorLike, x2: TensorLike, target: TensorLike, margin: float = 0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target · (x1 - x2)): a `target` of 1 ranks x1 above x2, one of -1 below.

    All three have the same number of axes and broadcast. Raises `ValueError` if shapes or options do not fit together,
    `TypeError` unless the dtypes of x1 and x2 are floating.

    Herbrich, Graepel and Obermayer, "Large Margin Rank Boundaries for Ordinal Regression" (2000), section 3.
    """
    op = "margin_ranking_loss"
    target = float_target(op, target, x1)
    (x1, x2, target), dtype = float_operands(op, x1=x1, x2=x2, target=target)
    _check_axes(op, x1=x1, x2=x2, target=target)
    shape = broadcast_shape(op, x1.shape, x2.shape, target.shape)
    margin = check.number(op, "margin", margin)
    check_reduction(op, x1, reduction, shape)
    losses = _HINGE(AddScalar(margin)(NEGATE(MULTIPLY(target, ADD(x1, NEGATE(x2))))))
    return as_dtype(reduced(losses, reduction), dtype)


def cosine_embedding_loss(
    x1: TensorLike, x2: TensorLike, target: TensorLike, margin: float = 0, reduction: str = "mean"
) -> Tensor:
    """1 - cos(x1, x2) where `target` is 1, max(0, cos(x1, x2) - margin) where it is -1, else 0: x1, x2 (N, D) -> (N,).

    `target` is (N,), or () for vectors (D,). Squared lengths are increased by 1e-12.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the dtypes of x1 and x2 are
    floating.
    """
    op = "cosine_embedding_loss"
    target = as_dtype(float_target(op, target, x1), tensor(op, x1).dtype)
    (x1, x2, target), dtype = float_operands(op, x1=x1, x2=x2, target=target)
    if target.ndim > 1 or x1.ndim != target.ndim + 1 or x2.ndim != x1.ndim:
        raise ValueError(
            f"{op}: x1 and x2 (N, D) with target (N,), or (D,) with (), are needed, but got {x1.shape}, {x2.shape} and "
            f"{target.shape}"
        )
    rows = broadcast_shape(op, broadcast_shape(op, x1.shape, x2.shape)[:-1], target.shape)
    margin = check.number(op, "margin", margin)
    check_reduction(op, x1, reduction, rows)
    total = Summation(-1)
    squares = (AddScalar(1e-12)(total(MULTIPLY(x, x))) for x in (x1, x2))
    cosine = DIVIDE(total(MULTIPLY(x1, x2)), Sqrt()(MULTIPLY(*squares)))
    zero = scalar_like(0, cosine)
    near = WHERE(EQUAL(target, scalar_like(1, target)), AddScalar(1)(NEGATE(cosine)), zero)
    far = WHERE(EQUAL(target, scalar_like(-1, target)), _HINGE(AddScalar(-margin)(cosine)), zero)
    return as_dtype(reduced(ADD(near, far), reduction), dtype)


def triplet_margin_loss(
    anchor: TensorLike,
    positive: TensorLike,
    negative: TensorLike,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), where d(a, b) is the p-norm of a - b + eps.

    All three are (…, D) with the same number of axes, and broadcast; the losses are (…). With `swap`, the smaller one
    of d(anchor, negative) and d(positive, negative) counts.

    Raises `ValueError` if shapes do not fit together or `margin` or `p` is not positive, `TypeError` unless dtypes are
    floating.

    Balntas, Riba, Ponsa and Mikolajczyk, "Learning Local Feature Descriptors with Triplets and Shallow Convolutional
    Neural Networks" (2016), equations 1 and 3.
    """
    op = "triplet_margin_loss"
    (anchor, positive, negative), dtype = float_operands(op, anchor=anchor, positive=positive, negative=negative)
    _check_axes(op, anchor=anchor, positive=positive, negative=negative)
    shape = broadcast_shape(op, anchor.shape, positive.shape, negative.shape)
    margin, p = check.number(op, "margin", margin, above=0), check.number(op, "p", p, above=0)
    eps = check.number(op, "eps", eps)
    check.instance(op, "swap", swap, bool)
    check_reduction(op, anchor, reduction, shape[:-1])
    far = _distance(anchor, negative, p, eps)
    if swap:
        far = Minimum()(far, _distance(positive, negative, p, eps))
    losses = _HINGE(AddScalar(margin)(ADD(_distance(anchor, positive, p, eps), NEGATE(far))))
    return as_dtype(reduced(losses, reduction), dtype)


def _distance(a: Tensor, b: Tensor, p: float, eps: float) -> Tensor:
    """The p-norm of a - b + eps over the last axis."""
    difference = AddScalar(eps)(ADD(a, NEGATE(b)))
    axes = (difference.ndim - 1,) if difference.ndim else ()
    length = vector_norm(difference, p if difference.shape[-1:] != (0,) else 1.0, axes)
    return Reshape(difference.shape[:-1])(length)


def _check_axes(op: str, **tensors: Tensor) -> None:
    """Refuse tensors with different numbers of axes."""
    if len({x.ndim for x in tensors.values()}) > 1:
        shapes = ", ".join(str(x.shape) for x in tensors.values())
        raise ValueError(f"{op}: {', '.join(tensors)} must have the same number of axes, but got {shapes}")
