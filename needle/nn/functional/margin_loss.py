"""Losses of classifiers by margins, under torch's names.

`reduction` is `"mean"`, `"sum"` (both of shape ()) or `"none"` (a loss per element or sample). The result has the dtype
of x; float16 is computed in float32. The mean of an empty batch is refused.
"""

from __future__ import annotations

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.kernels import Size
from needle.nn.functional.reduction import check_reduction, float_operands, float_target, reduced
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, DivScalar, as_dtype
from needle.ops.elementwise import RELU, Softplus
from needle.ops.linalg import MatMul
from needle.ops.logic import EQUAL, LESS, WHERE
from needle.ops.operand import as_indices, broadcast_shape, check_broadcast, check_range, scalar_like, tensor
from needle.ops.reduce import Summation
from needle.ops.shape import Permute, Reshape

__all__ = ["multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "soft_margin_loss"]


def multi_margin_loss(
    x: TensorLike,
    target: TensorLike,
    p: int = 1,
    margin: float = 1.0,
    weight: TensorLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over the other classes i of max(0, margin - x[target] + x[i]) ** p, divided by C: x (N, C) or (C,).

    `target` holds class indices, integers of any dtype: (N,), or () for (C,). `p` is 1 or 2. `weight` (C,) multiplies
    the losses by that of the target's class; the mean is divided by N.

    Raises `ValueError` if shapes or options do not fit together or, on the CPU, if an index is not in [0, C);
    `TypeError` if dtypes do not fit.

    Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines" (2001), section
    2.
    """
    op = "multi_margin_loss"
    scores = {"x": x} if weight is None else {"x": x, "weight": weight}
    (x, *weights), dtype = float_operands(op, **scores)
    n, c = _rows(op, x)
    target = tensor(op, target)
    if target.shape != (n,) and not (x.ndim < 2 and target.shape == ()):
        raise ValueError(f"{op}: target must hold a class index for each of the {n} rows of x, but got {target.shape}")
    if weights and weights[0].shape != (c,):
        raise ValueError(f"{op}: weight must hold 1 number for each of {c} classes, but got {weights[0].shape}")
    check.one_of(op, "p", p, (1, 2))
    margin = check.number(op, "margin", margin)
    check_reduction(op, x, reduction)
    classes = as_indices(op, "targets", target)
    check_range(op, "targets", classes, 0, c - 1)
    x, zero = Reshape((n, c))(x), scalar_like(0, x)
    is_target = EQUAL(Reshape((n, 1))(classes), init.arange(c, device=x.device))
    own = Summation(1, keepdims=True)(WHERE(is_target, x, zero))
    gaps = RELU(AddScalar(margin)(ADD(x, NEGATE(own))))
    losses = DivScalar(c)(Summation(1)(WHERE(is_target, zero, gaps if p == 1 else MULTIPLY(gaps, gaps))))
    for each in weights:
        losses = MULTIPLY(losses, Summation(1)(WHERE(is_target, each, zero)))
    return as_dtype(reduced(Reshape(target.shape)(losses), reduction), dtype)


def multilabel_margin_loss(x: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """The sum over the sample's classes y and the others i of max(0, 1 - x[y] + x[i]), divided by C: x (N, C) or (C,).

    `target`, of the shape of x, holds the classes of each sample, integers of any dtype; what follows the first -1 does
    not count.

    Raises `ValueError` if shapes or options do not fit together or, on the CPU, if an index is not in [-1, C);
    `TypeError` if dtypes do not fit.

    Zhang and Zhou, "Multilabel Neural Networks" (2006), equation 3, with hinges in place of exponentials.
    """
    op = "multilabel_margin_loss"
    (x,), dtype = float_operands(op, x=x)
    target = tensor(op, target)
    check.same(op, "shape", x.shape, target.shape, ("x", "target"))
    n, c = _rows(op, x)
    check_reduction(op, x, reduction)
    classes = as_indices(op, "targets", target)
    check_range(op, "targets", classes, -1, c - 1)
    device, zero, rows = x.device, scalar_like(0, x), x.shape[:-1]
    x, classes = Reshape((n, c))(x), Reshape((n, c))(classes)
    ends = as_dtype(LESS(classes, scalar_like(0, classes)), x.dtype)
    upto = Permute((1, 0))(init.tril(c, c, device=device, dtype=x.dtype))
    counts = Reshape((n, c, 1))(EQUAL(MatMul()(ends, upto), zero))  # no end so far: (N, targets, 1)
    labels = MULTIPLY(EQUAL(Reshape((n, c, 1))(classes), init.arange(c, device=device)), counts)  # (N, targets, C)
    own = Summation(2, keepdims=True)(WHERE(labels, Reshape((n, 1, c))(x), zero))
    is_other = EQUAL(Summation(1, keepdims=True)(as_dtype(labels, x.dtype)), zero)  # (N, 1, C)
    gaps = RELU(AddScalar(1)(ADD(Reshape((n, 1, c))(x), NEGATE(own))))
    losses = DivScalar(c)(Summation((1, 2))(WHERE(MULTIPLY(counts, is_other), gaps, zero)))
    return as_dtype(reduced(Reshape(rows)(losses), reduction), dtype)


def _rows(op: str, x: Tensor) -> Size:
    """(N, C) for x (N, C), (C,) or (), of which only N may be 0."""
    if x.ndim > 2 or 0 in x.shape[-1:]:
        raise ValueError(f"{op}: x must be (N, C) or (C,) with at least 1 class, but got shape {x.shape}")
    return (1,) * (2 - x.ndim) + x.shape


def soft_margin_loss(x: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """log(1 + e ** (-target · x)), without overflow, for any x and a `target` of 1 and -1 that broadcasts to x.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the dtype of x is floating.
    """
    op = "soft_margin_loss"
    target = as_dtype(float_target(op, target, x), tensor(op, x).dtype)
    (x, target), dtype = float_operands(op, x=x, target=target)
    check_broadcast(op, "target", target, "shape of x", x.shape)
    check_reduction(op, x, reduction)
    return as_dtype(reduced(Softplus()(NEGATE(MULTIPLY(target, x))), reduction), dtype)


def multilabel_soft_margin_loss(
    x: TensorLike, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean over C of -(target · log s + (1 - target) · log(1 - s)), s = sigmoid(x): x (…, C), without overflow.

    `target`, of 1 and 0, broadcasts with x; `weight` multiplies the losses before that mean, and broadcasts, too. With
    `reduction="none"` the result is (…).

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the dtypes of x and weight are
    floating.
    """
    op = "multilabel_soft_margin_loss"
    target = float_target(op, target, x)
    operands = {"x": x, "target": target} if weight is None else {"x": x, "target": target, "weight": weight}
    (x, target, *weights), dtype = float_operands(op, **operands)
    if not x.ndim or not x.shape[-1]:
        raise ValueError(f"{op}: x must be (…, C) with at least 1 class, but got shape {x.shape}")
    shape = broadcast_shape(op, x.shape, target.shape, *(each.shape for each in weights))
    check_reduction(op, x, reduction, shape)
    others = AddScalar(1)(NEGATE(target))
    losses = ADD(MULTIPLY(target, Softplus()(NEGATE(x))), MULTIPLY(others, Softplus()(x)))
    for each in weights:
        losses = MULTIPLY(losses, each)
    return as_dtype(reduced(DivScalar(x.shape[-1])(Summation(-1)(losses)), reduction), dtype)
