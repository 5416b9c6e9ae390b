"""Losses, under torch's names."""

from __future__ import annotations

from needle.backend_ndarray import cpu, xp
from needle.ops import getitem, logsoftmax, mean
from needle.ops.operand import tensor


def cross_entropy(x, target):
    """The mean of logsumexp(x) - x[target] over the batch: logits (N, C), integers (N,) of any dtype -> ().

    Raises ValueError where shapes disagree or, on the CPU, where a target is not in [0, C).
    """
    x, target = tensor("cross_entropy", x), tensor("cross_entropy", target)
    if x.ndim != 2 or target.shape != x.shape[:1]:
        raise ValueError(f"cross_entropy: x (N, C) and target (N,) are needed, but got {x.shape} and {target.shape}")
    if not x.shape[0]:
        raise ValueError("cross_entropy: the batch must not be empty, but got x of shape " + str(x.shape))
    classes = target.array.astype("int64")
    if target.device == cpu() and not (classes.min() >= 0 and classes.max() < x.shape[1]):
        raise ValueError(
            f"cross_entropy: targets must lie in [0, {x.shape[1] - 1}], but got {classes.min()} to {classes.max()}"
        )
    rows = xp(classes).arange(x.shape[0])
    return -mean(getitem(logsoftmax(x), (x.make_const(rows), x.make_const(classes))))
