"""Losses of distributions under torch's names: divergence, and negative log-likelihoods.

`reduction` is `"mean"`, `"sum"` (both of shape ()) or `"none"` (a loss per element). Operands broadcast; the result has
their widest dtype, and float16 is computed in float32. The mean of an empty batch is refused.
"""

from __future__ import annotations

import math

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn.functional.reduction import REDUCTIONS, check_reduction, float_operands, float_target, reduced
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, AddScalar, DivScalar, MulScalar, as_dtype
from needle.ops.elementwise import Clip, Exp, Log
from needle.ops.logic import EQUAL, LESS_EQUAL, WHERE
from needle.ops.operand import broadcast_shape, check_range, is_number, scalar_like, tensor
from needle.ops.shape import Reshape

__all__ = ["gaussian_nll_loss", "kl_div", "poisson_nll_loss"]

KL_REDUCTIONS = (*REDUCTIONS[:1], "batchmean", *REDUCTIONS[1:])


def kl_div(x: TensorLike, target: TensorLike, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log target - x) for log-probabilities x and probabilities `target`, which broadcast.

    With `log_target`, `target` holds logarithms, too. A probability of 0 adds no loss. `reduction="batchmean"`, the
    divergence by its definition, divides the sum by the size of the first axis of x; `"mean"` by the number of losses.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless both operands are floating.

    Kullback and Leibler, "On Information and Sufficiency" (1951), equation 2.4.
    """
    op = "kl_div"
    (x, target), dtype = float_operands(op, x=x, target=target)
    shape = broadcast_shape(op, x.shape, target.shape)
    check.instance(op, "log_target", log_target, bool)
    check_reduction(op, x, reduction, shape, KL_REDUCTIONS)
    if log_target:
        losses = MULTIPLY(Exp()(target), ADD(target, NEGATE(x)))
    else:
        safe = WHERE(EQUAL(target, scalar_like(0, target)), scalar_like(1, target), target)
        losses = MULTIPLY(target, ADD(Log()(safe), NEGATE(x)))
    if reduction == "batchmean":
        total = reduced(losses, "sum")
        return as_dtype(DivScalar(x.shape[0])(total) if x.ndim else total, dtype)
    return as_dtype(reduced(losses, reduction), dtype)


def poisson_nll_loss(
    x: TensorLike,
    target: TensorLike,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """e ** x - target · x, for the logarithm x of the mean of a Poisson law and counts `target`, which broadcast.

    With `log_input=False`, x is the mean itself: x - target · log(x + eps). `full` adds log(target!), by Stirling's
    formula target · log target - target + log(2π · target) / 2, for targets above 1. Integer targets are allowed.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless the dtype of x is floating.
    """
    op = "poisson_nll_loss"
    target = float_target(op, target, x)
    (x, target), dtype = float_operands(op, x=x, target=target)
    shape = broadcast_shape(op, x.shape, target.shape)
    check.instance(op, "log_input", log_input, bool)
    check.instance(op, "full", full, bool)
    eps = check.number(op, "eps", eps, least=0)
    check_reduction(op, x, reduction, shape)
    if log_input:
        losses = ADD(Exp()(x), NEGATE(MULTIPLY(target, x)))
    else:
        losses = ADD(x, NEGATE(MULTIPLY(target, Log()(AddScalar(eps)(x)))))
    if full:
        is_small, one = LESS_EQUAL(target, scalar_like(1, target)), scalar_like(1, target)
        count = WHERE(is_small, one, target)
        root = MulScalar(0.5)(Log()(MulScalar(2 * math.pi)(count)))
        stirling = ADD(MULTIPLY(count, AddScalar(-1)(Log()(count))), root)
        losses = ADD(losses, WHERE(is_small, scalar_like(0, target), stirling))
    return as_dtype(reduced(losses, reduction), dtype)


def gaussian_nll_loss(
    x: TensorLike,
    target: TensorLike,
    var: TensorLike,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - target)² / v) / 2 for the mean x and variance v of a normal law, v = max(var, eps).

    `var` is a number, has the shape of x, lacks its last axis, or has size 1 in one axis; x and target broadcast. The
    gradient ignores the limit `eps`. `full` adds log(2π) / 2. Integer targets are allowed.

    Raises `ValueError` if shapes or options do not fit together or, on the CPU, if a variance is negative; `TypeError`
    unless the dtypes of x and var are floating.

    Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution" (1994), equation 5.
    """
    op = "gaussian_nll_loss"
    is_one = is_number(var)
    x, target = tensor(op, x), float_target(op, target, x)
    (x, target, var), dtype = float_operands(op, x=x, target=target, var=tensor(op, var, x))
    if var.shape != x.shape and not is_one:
        var = _by_last_axis(var, x)
    shape = broadcast_shape(op, x.shape, target.shape, var.shape)
    check_range(op, "var", var, 0, math.inf)
    check.instance(op, "full", full, bool)
    eps = check.number(op, "eps", eps, least=0)
    check_reduction(op, x, reduction, shape)
    fixed = var.detach()
    var = ADD(var, ADD(Clip(eps, None)(fixed), NEGATE(fixed)))
    distance = ADD(x, NEGATE(target))
    losses = MulScalar(0.5)(ADD(Log()(var), DIVIDE(MULTIPLY(distance, distance), var)))
    if full:
        losses = AddScalar(0.5 * math.log(2 * math.pi))(losses)
    return as_dtype(reduced(losses, reduction), dtype)


def _by_last_axis(var: Tensor, x: Tensor) -> Tensor:
    """Variances that lack the last axis of x, or have size 1 in one axis, in a shape that broadcasts to x."""
    if var.shape == x.shape[:-1]:
        return Reshape((*var.shape, 1))(var)
    if var.ndim == x.ndim and [m for n, m in zip(x.shape, var.shape, strict=True) if n != m] == [1]:
        return var
    raise ValueError(
        f"gaussian_nll_loss: var must be one number, have the shape of x or size 1 in one axis, or lack the last axis, "
        f"but got {var.shape} for x {x.shape}"
    )
