"""Losses under torch's names.

`reduction` is `"mean"`, `"sum"` (both of shape ()) or `"none"` (a loss per element). The mean of an empty batch is
refused.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

from needle import check, init, ops
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, compute_dtype
from needle.backend.communicator import current_communicator
from needle.grad_mode import mode
from needle.kernels import class_axis
from needle.nn.functional.reduction import check_reduction, reduced, reduced_weighted
from needle.ops.across_ranks import is_any
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, MulScalar, as_dtype
from needle.ops.cross_entropy import CROSS_ENTROPY, CrossEntropyWithGradient
from needle.ops.dtypes import promoted
from needle.ops.elementwise import Abs, ClampedLog, Clip, Softplus
from needle.ops.logic import WHERE
from needle.ops.operand import (
    all_in_range,
    are_known,
    as_indices,
    broadcast_shape,
    check_broadcast,
    check_range,
    scalar_like,
    tensor,
    without_index,
)
from needle.ops.reduce import LogSoftmax, Mean, Summation
from needle.ops.shape import Reshape
from needle.ops.squared_error import SquaredErrorWithGradient
from needle.ops.tuples import pick

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]

LABELS = ("int64", "int32", "uint8")  # dtypes of class indices that need no cast on a GPU

# ---- classes ---------------------------------------------------------------------------------------------------------


def cross_entropy(
    x: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(x)[target], weighted by class, of logits x (N, C), (N, C, *S) or (C,).

    `target` holds one of:

    - class indices, integers of any dtype: (N,), (N, *S) or (). Those equal to `ignore_index` add no loss. The mean is
      taken over the others, weighted by `weight` (C,).
    - probabilities of each class, of the shape and dtype of x. The mean is taken over N and *S.

    `label_smoothing` spreads that share of each target evenly over all classes.

    Raises `ValueError` if shapes or options do not fit together or, on the CPU, if an index is not in [0, C);
    `TypeError` if dtypes do not fit. On a GPU, where asking would wait, such an index makes the loss of float32 logits
    NaN; with weights or smoothing it is undefined.

    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), section 7.

    >>> import needle as ndl
    >>> cross_entropy(ndl.Tensor([[0.0, 0.0], [2.0, 2.0]]), ndl.Tensor([0, 1])).item()
    0.6931471805599453
    """
    op = "cross_entropy"
    x, weight = _scores(op, x, weight)
    target = tensor(op, target)
    smoothing = check.number(op, "label_smoothing", label_smoothing, least=0, most=1)
    ignore_index = check.integer(op, "ignore_index", ignore_index)
    axis = class_axis(x)
    if target.shape != x.shape:
        if weight is None and not smoothing and reduction != "none" and _counts_launches(x):
            _check_classes(op, x, target)
            classes = target if target.dtype.name in LABELS else as_indices(op, "targets", target)
            check_reduction(op, x, reduction)
            communicator = current_communicator()
            sums_counts = reduction == "mean" and communicator.part is not None and target.ndim
            made = CrossEntropyWithGradient(ignore_index, reduction == "mean", communicator if sums_counts else None)
            return pick(made(x, classes), 0)
        check_reduction(op, x, reduction)
        classes, kept = _class_indices(op, x, target, ignore_index, weight is None and reduction == "mean")
        if kept is None and weight is None and not smoothing and reduction == "mean":
            return CROSS_ENTROPY(x, classes)
        return _of_indices(LogSoftmax(axis)(x), classes, kept, weight, reduction, smoothing)
    if target.dtype.kind != "f":
        raise TypeError(f"{op}: target of the shape of x must hold probabilities, but got dtype {target.dtype}")
    if ignore_index >= 0:
        raise ValueError(f"{op}: ignore_index must be negative with probabilities as target, but got {ignore_index}")
    check_reduction(op, x, reduction)
    if smoothing:
        target = AddScalar(smoothing / x.shape[axis])(MulScalar(1 - smoothing)(target))
    terms = MULTIPLY(LogSoftmax(axis)(x), target)
    if weight is not None:
        terms = MULTIPLY(terms, _per_class(weight, x))
    return reduced(NEGATE(Summation(axis)(terms)), reduction)


def nll_loss(
    x: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-x[target], weighted by class, of log-probabilities x (N, C), (N, C, *S) or (C,) and class indices.

    `target` is (N,), (N, *S) or (). Other arguments and errors as in `cross_entropy`.
    """
    op = "nll_loss"
    x, weight = _scores(op, x, weight)
    ignore_index = check.integer(op, "ignore_index", ignore_index)
    check_reduction(op, x, reduction)
    counts = weight is None and reduction == "mean"
    classes, kept = _class_indices(op, x, tensor(op, target), ignore_index, counts)
    return _of_indices(x, classes, kept, weight, reduction)


def _scores(op: str, x: TensorLike, weight: TensorLike | None) -> tuple[Tensor, Tensor | None]:
    """x with one score per class, and the weights of the classes, if any."""
    x = tensor(op, x)
    if not x.ndim or not x.shape[class_axis(x)]:
        raise ValueError(f"{op}: x must be (C,), (N, C) or (N, C, *S) with at least 1 class, but got shape {x.shape}")
    if weight is None:
        check.floats(op, x=x)
        return x, None
    weight = tensor(op, weight)
    if weight.shape != (x.shape[class_axis(x)],):
        raise ValueError(f"{op}: weight must hold 1 number for each class of x {x.shape}, but got {weight.shape}")
    check.floats(op, x=x, weight=weight)
    return x, weight


def _class_indices(
    op: str, x: Tensor, target: Tensor, ignore_index: int, is_counted: bool
) -> tuple[Tensor, Tensor | None]:
    """The class indices as int64, 0 where ignored, and a mask of the others (None: no index is ignored).

    If the others are counted, for a mean, the ranks that compute parts of a batch agree on whether there is a mask,
    unless the dtype of the target cannot hold `ignore_index`.
    """
    n = _check_classes(op, x, target)
    classes = as_indices(op, "targets", target)
    if are_known(classes) and not 0 <= ignore_index < n:
        may_ignore = not all_in_range(classes, n)
        may_differ = is_counted and classes.ndim and (ignore_index >= 0 or target.dtype.kind != "u")
        if not (is_any(may_ignore) if may_differ else may_ignore):
            return classes, None
    if mode.outlining:
        kept = ops.not_equal(classes, ignore_index)
        return MULTIPLY(classes, kept), kept
    kept_classes, kept = without_index(classes, ignore_index)
    if are_known(classes) and not all_in_range(kept_classes, n):
        check_range(op, "targets", ops.getitem(classes, kept), 0, n - 1)
    return kept_classes, kept


def _check_classes(op: str, x: Tensor, target: Tensor) -> int:
    """The number of classes of x. Raises ValueError unless the target has its other axes."""
    axis = class_axis(x)
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    if target.shape != shape:
        also = f" or probabilities {x.shape}" if op == "cross_entropy" else ""
        raise ValueError(f"{op}: target must hold class indices {shape}{also} for x {x.shape}, but got {target.shape}")
    return x.shape[axis]


def _counts_launches(x: Tensor) -> bool:
    """Whether value and gradient of a loss should be made together: on a GPU."""
    return x.device.is_async and not mode.outlining


def _of_indices(
    log_p: Tensor,
    classes: Tensor,
    kept: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    smoothing: float = 0,
) -> Tensor:
    """The loss of log-probabilities at class indices; only those in the mask `kept` count."""
    axis = class_axis(log_p)
    grid = _index_grid(classes.shape, classes.device)
    losses = NEGATE(ops.getitem(log_p, (*grid[:axis], classes, *grid[axis:])))
    weights = None if weight is None else ops.getitem(weight, classes)
    if weights is not None:
        losses = MULTIPLY(losses, weights)
    if smoothing:
        terms = log_p if weight is None else MULTIPLY(log_p, _per_class(weight, log_p))
        spread = MulScalar(smoothing)(Mean(axis)(terms))
        losses = ADD(MulScalar(1 - smoothing)(losses), NEGATE(spread))
    if kept is not None:
        losses = WHERE(kept, losses, scalar_like(0, losses))
        weights = as_dtype(kept, log_p.dtype) if weights is None else MULTIPLY(weights, kept)
    return reduced(losses, reduction, weights)


@lru_cache(maxsize=32)
def _index_grid(shape: tuple[int, ...], device: Device) -> tuple[Tensor, ...]:
    """The positions along each axis of `shape`, as index tensors that broadcast to it."""
    rank = len(shape)
    return tuple(
        ops.reshape(init.arange(n, device=device), (n,) + (1,) * (rank - 1 - axis)) for axis, n in enumerate(shape)
    )


def _per_class(weight: Tensor, x: Tensor) -> Tensor:
    """Weights (C,) in a shape that broadcasts to x."""
    return Reshape((weight.size, *(1,) * (x.ndim - 1 - class_axis(x))))(weight)


# ---- distances -------------------------------------------------------------------------------------------------------


def mse_loss(x: TensorLike, target: TensorLike, reduction: str = "mean", weight: TensorLike | None = None) -> Tensor:
    """(x - target)², for operands of any shapes that broadcast (with a warning if they differ).

    `weight`, of the shape of x, multiplies the losses; the mean is then divided by the mean weight. A target of
    integers is cast to the dtype of x.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the dtype of x is floating.
    """
    x, target, weight, dtype = _operands("mse_loss", x, target, weight, reduction)
    is_plain = weight is None and reduction != "none" and (x.shape, x.dtype) == (target.shape, target.dtype)
    if is_plain and x.size and _counts_launches(x):
        return as_dtype(pick(SquaredErrorWithGradient(reduction == "mean")(x, target), 0), dtype)
    distance = ADD(x, NEGATE(target))
    return as_dtype(reduced_weighted(MULTIPLY(distance, distance), weight, reduction), dtype)


def l1_loss(x: TensorLike, target: TensorLike, reduction: str = "mean", weight: TensorLike | None = None) -> Tensor:
    """|x - target|, with derivative 0 at 0. Shapes, `weight` and errors as in `mse_loss`."""
    x, target, weight, dtype = _operands("l1_loss", x, target, weight, reduction)
    return as_dtype(reduced_weighted(Abs()(ADD(x, NEGATE(target))), weight, reduction), dtype)


def smooth_l1_loss(x: TensorLike, target: TensorLike, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d² / (2·beta) where d = |x - target| is below `beta`, else d - beta / 2; `l1_loss` if `beta` is 0.

    Shapes and errors as in `mse_loss`.

    Girshick, "Fast R-CNN" (2015), equation 3.
    """
    x, target, _, dtype = _operands("smooth_l1_loss", x, target, None, reduction)
    beta = check.number("smooth_l1_loss", "beta", beta, least=0)
    distance = ADD(x, NEGATE(target))
    losses = _huber(distance, beta, 0.5 / beta, 1.0) if beta else Abs()(distance)
    return as_dtype(reduced(losses, reduction), dtype)


def huber_loss(
    x: TensorLike,
    target: TensorLike,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: TensorLike | None = None,
) -> Tensor:
    """d² / 2 where d = |x - target| is below `delta`, else delta · (d - delta / 2).

    Shapes and errors as in `mse_loss`, but the mean of weighted losses is divided by the count.

    Huber, "Robust Estimation of a Location Parameter" (1964).
    """
    x, target, weight, dtype = _operands("huber_loss", x, target, weight, reduction)
    delta = check.number("huber_loss", "delta", delta, above=0)
    losses = _huber(ADD(x, NEGATE(target)), delta, 0.5, delta)
    return as_dtype(reduced(losses if weight is None else MULTIPLY(losses, weight), reduction), dtype)


def _huber(distance: Tensor, delta: float, square: float, slope: float) -> Tensor:
    """square · d² within ±delta, continued by lines of the same slope, whose derivative is finite at infinity too."""
    clipped = Clip(-delta, delta)(distance)
    inside = MULTIPLY(MulScalar(square)(clipped), clipped)
    if delta == math.inf:
        return inside
    return ADD(inside, MulScalar(slope)(Abs()(ADD(distance, NEGATE(clipped)))))


def _operands(
    op: str, x: TensorLike, target: TensorLike, weight: TensorLike | None, reduction: str
) -> tuple[Tensor, Tensor, Tensor | None, Any]:
    """The operands of a distance as tensors, and the dtype of the loss; integers and lists of floats have that of x.

    float16 is computed in float32: the gradient of a mean of many elements keeps few digits in it.
    """
    x = tensor(op, x)
    check.floats(op, x=x)
    target = tensor(op, target, x)
    shape = broadcast_shape(op, x.shape, target.shape)
    if weight is not None:
        weight = tensor(op, weight, x)
        check.same(op, "shape", x.shape, weight.shape, ("x", "weight"))
        x, weight = promoted(op, x, weight)
    check_reduction(op, x, reduction, shape)
    if x.shape != target.shape:
        warnings.warn(f"{op}: x and target broadcast to {shape}, but got {x.shape} and {target.shape}", stacklevel=3)
    target = target if target.dtype.kind == "f" else as_dtype(target, x.dtype)
    dtype = max(x.dtype, target.dtype, key=lambda dtype: dtype.itemsize)
    if dtype.char != "e":
        return x, target, weight, dtype
    wide = compute_dtype(dtype)
    return as_dtype(x, wide), as_dtype(target, wide), None if weight is None else as_dtype(weight, wide), dtype


# ---- two classes -----------------------------------------------------------------------------------------------------


def binary_cross_entropy(
    x: TensorLike, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """-(target · log x + (1 - target) · log(1 - x)) for probabilities x and target of the same shape and dtype.

    Logarithms are limited to at least -100, their derivatives to at most 1e12. `weight` broadcasts to x and multiplies
    the losses; the mean is divided by the count.

    Raises `ValueError` if shapes or options do not fit together or, on the CPU, if x or target is not in [0, 1];
    `TypeError` if dtypes differ.
    """
    op = "binary_cross_entropy"
    x, target, weight, _ = _binary_operands(op, x, target, reduction, weight, None)
    check_range(op, "x", x, 0, 1)
    check_range(op, "target", target, 0, 1)
    positive = MULTIPLY(target, ClampedLog()(x))
    negative = MULTIPLY(_complement(target), ClampedLog()(_complement(x)))
    losses = NEGATE(ADD(positive, negative))
    return reduced(losses if weight is None else MULTIPLY(losses, weight), reduction)


def binary_cross_entropy_with_logits(
    x: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(x), without overflow: (1 - target) · x + log(1 + e ** -x).

    `pos_weight` multiplies the loss of the positive part, target · log sigmoid(x). Both weights broadcast to x.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` if dtypes differ.
    """
    op = "binary_cross_entropy_with_logits"
    x, target, weight, pos_weight = _binary_operands(op, x, target, reduction, weight, pos_weight)
    dtype = x.dtype
    x, target = (as_dtype(value, compute_dtype(dtype)) for value in (x, target))
    positive = Softplus()(NEGATE(x))  # -log sigmoid(x)
    if pos_weight is not None:  # · ((pos_weight - 1) · target + 1)
        positive = MULTIPLY(positive, AddScalar(1)(MULTIPLY(AddScalar(-1)(pos_weight), target)))
    losses = ADD(MULTIPLY(_complement(target), x), positive)
    return as_dtype(reduced(losses if weight is None else MULTIPLY(losses, weight), reduction), dtype)


def _complement(x: Tensor) -> Tensor:
    """1 - x."""
    return AddScalar(1)(NEGATE(x))


def _binary_operands(
    op: str,
    x: TensorLike,
    target: TensorLike,
    reduction: str,
    weight: TensorLike | None,
    pos_weight: TensorLike | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """x and target of the same shape, and weights that broadcast to it, all of one dtype."""
    x, target = tensor(op, x), tensor(op, target)
    check.same(op, "shape", x.shape, target.shape, ("x", "target"))
    optional = {"weight": weight, "pos_weight": pos_weight}
    weights = {name: tensor(op, value) for name, value in optional.items() if value is not None}
    check.floats(op, x=x, target=target, **weights)
    for name, value in weights.items():
        check_broadcast(op, name, value, "shape of x", x.shape)
    check_reduction(op, x, reduction)
    return x, target, weights.get("weight"), weights.get("pos_weight")
