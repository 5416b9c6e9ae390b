"""Losses, under torch's names.

`reduction` is "mean", "sum" or "none". The mean of an empty batch is refused.
"""

from __future__ import annotations

import warnings

from needle import check, ops
from needle.backend import cpu, xp
from needle.nn.functional.linear import check_broadcast, check_range, integers
from needle.ops.conv import check_floats
from needle.ops.cross_entropy import CrossEntropy, class_axis, places
from needle.ops.operand import broadcast_shape, tensor

REDUCTIONS = ("none", "mean", "sum")

# ---- classes ---------------------------------------------------------------------------------------------------------


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """-log softmax(x)[target], weighted by class: logits x (N, C), (N, C, *S) or (C,), and a target of two kinds.

    Class indices, integers of any dtype: (N,), (N, *S) or (). Those equal to `ignore_index` count for nothing; the
    mean is that over the others, weighted by `weight` (C,). Or probabilities of each class, of the shape and dtype of
    x; the mean is that over N and *S. `label_smoothing` moves that share of each target to all classes evenly.

    Raises ValueError where shapes or options do not fit together or, on the CPU, where an index is not in [0, C);
    TypeError where dtypes do not fit.

    >>> import needle as ndl
    >>> cross_entropy(ndl.Tensor([[0.0, 0.0], [2.0, 2.0]]), ndl.Tensor([0, 1])).item()
    0.6931471805599453
    """
    op = "cross_entropy"
    x, weight = _scores(op, x, weight)
    target = tensor(op, target)
    smoothing = check.number(op, "label_smoothing", label_smoothing, least=0, most=1)
    ignore_index = check.integer(op, "ignore_index", ignore_index)
    if target.shape != x.shape:
        classes, kept = _classes(op, x, target, ignore_index)
        _check_reduction(op, x, reduction)
        if kept is None and weight is None and not smoothing and reduction == "mean":
            return CrossEntropy()(x, x.make_const(classes))
        return _of_indices(ops.logsoftmax(x, class_axis(x)), classes, kept, weight, reduction, smoothing)
    if target.dtype.kind != "f":
        raise TypeError(f"{op}: target of the shape of x must hold probabilities, but got dtype {target.dtype}")
    if ignore_index >= 0:
        raise ValueError(f"{op}: ignore_index must be negative with probabilities as target, but got {ignore_index}")
    _check_reduction(op, x, reduction)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[class_axis(x)]
    terms = ops.logsoftmax(x, class_axis(x)) * target
    return _reduced(
        -ops.summation(terms if weight is None else terms * _per_class(weight, x), class_axis(x)), reduction
    )


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """-x[target], weighted by class: log-probabilities x (N, C), (N, C, *S) or (C,), class indices (N,), (N, *S) or ().

    The other arguments and the errors are those of `cross_entropy`.
    """
    op = "nll_loss"
    x, weight = _scores(op, x, weight)
    classes, kept = _classes(op, x, tensor(op, target), check.integer(op, "ignore_index", ignore_index))
    _check_reduction(op, x, reduction)
    return _of_indices(x, classes, kept, weight, reduction)


def _scores(op, x, weight):
    """x with one score for each class, and the weights of the classes, where there are any."""
    x = tensor(op, x)
    if not x.ndim or not x.shape[class_axis(x)]:
        raise ValueError(f"{op}: x must be (C,), (N, C) or (N, C, *S) with at least 1 class, but got shape {x.shape}")
    check_floats(op, x=x)
    if weight is not None:
        weight = tensor(op, weight)
        if weight.shape != (x.shape[class_axis(x)],):
            raise ValueError(f"{op}: weight must hold 1 number for each class of x {x.shape}, but got {weight.shape}")
        check_floats(op, x=x, weight=weight)
    return x, weight


def _classes(op, x, target, ignore_index):
    """The class indices as int64, zeros where ignored, and a mask of those that count: None where all do."""
    shape = x.shape[: class_axis(x)] + x.shape[class_axis(x) + 1 :]
    if target.shape != shape:
        also = f" or probabilities {x.shape}" if op == "cross_entropy" else ""
        raise ValueError(f"{op}: target must hold class indices {shape}{also} for x {x.shape}, but got {target.shape}")
    classes, n = integers(op, "targets", target), x.shape[class_axis(x)]
    if target.device == cpu():
        ignored = 0 <= ignore_index < n
        if not ignored and (not target.size or classes.view("uint64").max() < n):  # negative ones are large then
            return classes, None
        check_range(op, "targets", classes[classes != ignore_index], n)
    kept = xp(classes).asarray(classes != ignore_index)  # NumPy makes of a 0-d comparison what is no array
    return xp(classes).where(kept, classes, 0), kept


def _of_indices(log_p, classes, kept, weight, reduction, smoothing=0):
    """The loss of log-probabilities at class indices, of which those count that are `kept`."""
    axis = class_axis(log_p)
    losses = -ops.getitem(log_p, tuple(log_p.make_const(array) for array in places(classes, axis)))
    weights = None if weight is None else ops.getitem(weight, weight.make_const(classes))
    if weights is not None:
        losses = losses * weights
    if smoothing:
        everywhere = ops.summation(log_p if weight is None else log_p * _per_class(weight, log_p), axis)
        losses = losses * (1 - smoothing) - everywhere * (smoothing / log_p.shape[axis])
    if kept is not None:
        kept = log_p.make_const(kept)
        losses = ops.where(kept, losses, 0)
        weights = kept.astype(log_p.dtype) if weights is None else weights * kept
    return _reduced(losses, reduction, weights)


def _per_class(weight, x):
    """Weights (C,) in a shape that broadcasts with x."""
    return ops.reshape(weight, (-1,) + (1,) * (x.ndim - 1 - class_axis(x)))


# ---- distances -------------------------------------------------------------------------------------------------------


def mse_loss(x, target, reduction="mean", weight=None):
    """(x - target)², for operands that broadcast (with a warning where shapes differ).

    With `weight`, of the shape of x, the mean is the weighted one. Raises ValueError where shapes or options do not
    fit together, TypeError where x is of no floating dtype.
    """
    x, target, weight = _distant("mse_loss", x, target, weight, reduction)
    distance = x - target
    return _weighted(distance * distance, weight, reduction)


def l1_loss(x, target, reduction="mean", weight=None):
    """|x - target|, whose derivative at 0 is 0; shapes, `weight` and errors as in `mse_loss`."""
    x, target, weight = _distant("l1_loss", x, target, weight, reduction)
    return _weighted(ops.abs(x - target), weight, reduction)


def smooth_l1_loss(x, target, reduction="mean", beta=1.0):
    """d² / (2·beta) where d = |x - target| is below `beta`, else d - beta / 2; `l1_loss` where `beta` is 0.

    Shapes and errors as in `mse_loss`. Girshick, "Fast R-CNN" (2015), equation 3.
    """
    x, target, _ = _distant("smooth_l1_loss", x, target, None, reduction)
    beta = check.number("smooth_l1_loss", "beta", beta, least=0)
    return _reduced(_huber(x - target, beta) / beta if beta else ops.abs(x - target), reduction)


def huber_loss(x, target, reduction="mean", delta=1.0, weight=None):
    """d² / 2 where d = |x - target| is below `delta`, else delta · (d - delta / 2).

    Shapes and errors as in `mse_loss`, but with `weight` the mean is divided by the count. Huber, "Robust Estimation of
    a Location Parameter" (1964).
    """
    x, target, weight = _distant("huber_loss", x, target, weight, reduction)
    losses = _huber(x - target, check.number("huber_loss", "delta", delta, above=0))
    return _reduced(losses if weight is None else losses * weight, reduction)


def _huber(distance, delta):
    """Half the square within ±delta and the tangents outside: c · (d - c / 2) with c = d limited to ±delta."""
    near = ops.clip(distance, -delta, delta)
    return near * (distance - near * 0.5)


def _distant(op, x, target, weight, reduction):
    """The operands of a distance; integers become numbers of the dtype of x."""
    x, target = tensor(op, x), tensor(op, target)
    check_floats(op, x=x)
    shape = broadcast_shape(op, x.shape, target.shape)
    if weight is not None:
        weight = tensor(op, weight)
        check.same(op, "shape", x.shape, weight.shape, ("x", "weight"))
    _check_reduction(op, x, reduction, shape)
    if x.shape != target.shape:
        warnings.warn(f"{op}: x and target broadcast to {shape}, but got {x.shape} and {target.shape}", stacklevel=3)
    return x, target if target.dtype.kind == "f" else target.astype(x.dtype), weight


def _weighted(losses, weight, reduction):
    return _reduced(losses if weight is None else losses * weight, reduction, weight)


# ---- two classes -----------------------------------------------------------------------------------------------------


def binary_cross_entropy(x, target, weight=None, reduction="mean"):
    """-(target · log x + (1 - target) · log(1 - x)) for probabilities x and target of one shape and dtype.

    Logarithms are at least -100, and their derivatives at most 1e12. `weight` broadcasts to x; the mean is divided by
    the count. Raises ValueError where shapes or options do not fit together or, on the CPU, where x or target is not
    in [0, 1]; TypeError where dtypes differ.
    """
    op = "binary_cross_entropy"
    x, target, weight = _binary(op, x, target, weight, reduction)
    for name, given in ("x", x), ("target", target):
        if given.device == cpu() and given.size and not (given.array.min() >= 0 and given.array.max() <= 1):
            raise ValueError(
                f"{op}: {name} must lie in [0, 1], but got values from {given.array.min()} to {given.array.max()}"
            )
    losses = -(target * ops.clamped_log(x) + (1 - target) * ops.clamped_log(1 - x))
    return _reduced(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    """`binary_cross_entropy` of sigmoid(x), without overflow: (1 - target) · x + log(1 + e ** -x).

    `pos_weight` multiplies the loss of the positive part, target · log sigmoid(x). Both weights broadcast to x.
    Raises ValueError where shapes or options do not fit together, TypeError where dtypes differ.
    """
    op = "binary_cross_entropy_with_logits"
    x, target, weight = _binary(op, x, target, weight, reduction)
    negative = ops.softplus(-x)
    if pos_weight is not None:
        pos_weight = tensor(op, pos_weight)
        check_floats(op, x=x, pos_weight=pos_weight)
        check_broadcast(op, "pos_weight", pos_weight, "shape of x", x.shape)
        negative = negative * ((pos_weight - 1) * target + 1)
    losses = (1 - target) * x + negative
    return _reduced(losses if weight is None else losses * weight, reduction)


def _binary(op, x, target, weight, reduction):
    """Operands of one shape and dtype, and a weight that broadcasts to them."""
    x, target = tensor(op, x), tensor(op, target)
    check.same(op, "shape", x.shape, target.shape, ("x", "target"))
    check_floats(op, x=x, target=target)
    if weight is not None:
        weight = tensor(op, weight)
        check_floats(op, x=x, weight=weight)
        check_broadcast(op, "weight", weight, "shape of x", x.shape)
    _check_reduction(op, x, reduction)
    return x, target, weight


# ---- reduction -------------------------------------------------------------------------------------------------------


def _check_reduction(op, x, reduction, shape=None):
    """Refuse an unknown reduction, and the mean of nothing."""
    check.one_of(op, "reduction", reduction, REDUCTIONS)
    if reduction == "mean" and 0 in (x.shape if shape is None else shape):
        raise ValueError(f"{op}: the batch must not be empty, but got x of shape {x.shape}")


def _reduced(losses, reduction, weights=None):
    """The losses, their sum or their mean, which is divided by that of the weights they were multiplied by."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.summation(losses)
    average = ops.mean(losses)
    return average if weights is None else average / ops.mean(weights)
