"""What losses share: floating operands of one dtype, and the reduction of losses to one number."""

from __future__ import annotations

from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.ops.across_ranks import batch_mean
from needle.ops.arithmetic import DIVIDE, MULTIPLY, as_dtype
from needle.ops.operand import tensor
from needle.ops.reduce import Mean, Summation

__all__: list[str] = []

REDUCTIONS = ("none", "mean", "sum")


def float_operands(op: str, **operands: TensorLike) -> tuple[list[Tensor], Any]:
    """The operands as floating tensors of one dtype in which to compute, and the dtype of the result.

    The result has the widest dtype of the operands, of those with axes if there are any; float16 is computed in
    float32. Raises `TypeError` unless all are floating and on one device.
    """
    like = next((value for value in operands.values() if isinstance(value, Tensor)), None)
    tensors = {name: tensor(op, value, like) for name, value in operands.items()}
    for name, value in tensors.items():
        check.floats(op, **{name: value})
    decisive = [value for value in tensors.values() if value.ndim] or tensors.values()
    dtype = max((value.dtype for value in decisive), key=lambda dtype: dtype.itemsize)
    values = {name: as_dtype(value, dtype) for name, value in tensors.items()}
    check.floats(op, **values)
    return [as_dtype(value, compute_dtype(dtype)) for value in values.values()], dtype


def float_target(op: str, target: TensorLike, x: TensorLike) -> Tensor:
    """A target as a tensor; integers and bools in the dtype of x."""
    x = tensor(op, x)
    target = tensor(op, target, x)
    check.floats(op, x=x)
    return target if target.dtype.kind == "f" else as_dtype(target, x.dtype)


def check_reduction(
    op: str,
    x: Tensor,
    reduction: str,
    shape: tuple[int, ...] | None = None,
    choices: tuple[str, ...] = REDUCTIONS,
) -> None:
    """Refuse an unknown reduction, and the mean of no losses: `shape`, by default the shape of x, has no elements."""
    check.one_of(op, "reduction", reduction, choices)
    if reduction.endswith("mean") and 0 in (x.shape if shape is None else shape):
        raise ValueError(f"{op}: the batch must not be empty, but got x of shape {x.shape}")


def reduced(losses: Tensor, reduction: str, weights: Tensor | None = None) -> Tensor:
    """The losses, their sum, or their mean; `weights`, already multiplied in, divide the mean by their own mean.

    Of a batch in parts, that is the mean weight of all items: so the parts' losses add up to that of the batch.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return Summation()(losses)
    if weights is None:
        return Mean()(losses)
    wide = compute_dtype(losses.dtype)  # in float16, the mean of weights that are mostly 0 loses its digits
    mean_weight = Mean()(as_dtype(weights, wide))
    if losses.ndim:
        mean_weight = batch_mean(mean_weight)
    return as_dtype(DIVIDE(Mean()(as_dtype(losses, wide)), mean_weight), losses.dtype)


def reduced_weighted(losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """`reduced` losses times `weight`, whose mean is divided by the mean weight."""
    return reduced(losses if weight is None else MULTIPLY(losses, weight), reduction, weight)
