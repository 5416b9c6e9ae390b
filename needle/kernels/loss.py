"""Losses with their gradients, made together for devices on which a launch costs more than the arithmetic."""

from __future__ import annotations

from typing import Any

from needle.backend import compute_dtype, overridable, xp
from needle.kernels.layout import Array
from needle.kernels.reduce import sums

__all__ = ["class_axis", "class_index", "scaled_gradient", "softmax_cross_entropy", "squared_error"]


def class_axis(x: Any) -> int:
    """The axis of the classes in (N, C, *S) or (C,)."""
    return 1 if x.ndim > 1 else x.ndim - 1


def class_index(classes: Array, axis: int) -> tuple[Array, ...]:
    """The index that selects, from (N, C, *S), the element of class `classes` (N, *S) at every position."""
    grid = [xp(classes).arange(n) for n in classes.shape]
    grid = [line.reshape((-1,) + (1,) * (len(grid) - i - 1)) for i, line in enumerate(grid)]
    return (*grid[:axis], classes, *grid[axis:])


@overridable
def softmax_cross_entropy(
    x: Array, classes: Array, ignored: int, mean: bool, apart: bool = False
) -> tuple[Array, Array, Array]:
    """The sum or the mean of -log softmax(x)[class], the gradient of the sum, and what divides it: (), like x, ().

    x is (N, C, *S) or (C,), and classes are integers (N, *S) or (). Those equal to `ignored` count for nothing; where
    all do, the divisor of a mean is 0 and the mean NaN. float16 is computed in float32. Others outside [0, C) are
    undefined here; a device may answer by NaN. A mean that is wanted `apart` is not divided yet.
    """
    axis = class_axis(x)
    wide = x.astype(compute_dtype(x.dtype), copy=False)
    kept = classes != ignored
    index = class_index(xp(x).where(kept, classes, 0), axis)
    shifted = wide - wide.max(axis=axis, keepdims=True)
    gradient = xp(x).exp(shifted)
    total = sums(gradient, (axis,))
    losses = xp(x).where(kept, xp(x).log(total).squeeze(axis) - shifted[index], 0)
    gradient /= total
    gradient[index] -= 1
    gradient = xp(x).where(xp(x).expand_dims(kept, axis), gradient, 0).astype(wide.dtype, copy=False)
    divisor = kept.sum(dtype=wide.dtype) if mean else xp(x).ones((), wide.dtype)
    total = losses.sum(dtype="float64")
    return total.astype(wide.dtype) if apart else (total / divisor).astype(x.dtype), gradient, divisor


@overridable
def squared_error(x: Array, target: Array, mean: bool) -> tuple[Array, Array]:
    """The sum or the mean of (x - target)², (), and x - target; both operands have one shape."""
    difference = x - target
    axes = tuple(range(x.ndim))
    total = sums(difference * difference, axes).reshape(())
    return total / x.size if mean else total, difference


@overridable
def scaled_gradient(gradient: Array, out_grad: Array, divisor: Array | None = None, factor: float = 1.0) -> Array:
    """gradient · (out_grad · factor / divisor), of one number each (); 0 if the divisor is 0."""
    scale = out_grad.astype(gradient.dtype) * factor
    if divisor is not None:
        scale = xp(gradient).where(divisor == 0, 0, scale / divisor)
    return (gradient * scale).astype(gradient.dtype, copy=False)
