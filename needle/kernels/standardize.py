"""Normalization in parts: statistics, their application, and the gradient, each of few passes over memory.

`mean` is the mean of an array, or of the product of two, over the normalized axes, in float64. Statistics and
coefficients broadcast to the array: columns (R, 1) of rows (R, M). A variance is computed from the mean square, which
saves centering. That is exact to rounding, except where a mean is large beside the deviations, "far from zero": only
there elements are centered first. No row depends on others.

Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, which also has the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from needle import tuning
from needle.backend import device_of, xp
from needle.kernels.activation import rectify
from needle.kernels.layout import Array
from needle.kernels.reduce import means, row_products, row_sums

__all__ = ["MeanOf", "apply_line", "find_line", "find_shift", "gradient_line", "input_gradient", "mean_of_rows",
           "mean_over", "moments"]  # fmt: skip

MeanOf: TypeAlias = Callable[..., Array]


def mean_over(axes: tuple[int, ...]) -> MeanOf:
    """The mean over axes that stay with size 1."""
    return lambda x, *other: means(xp(x).multiply(x, *other) if other else x, axes, "float64")


def mean_of_rows(x: Array, *other: Array) -> Array:
    """The mean of each row (R, M), or of the product of two: (R, 1)."""
    total = row_products(x, *other) if other else row_sums(x)
    return total.astype("float64", copy=False) / x.shape[1]


# ---- forward ---------------------------------------------------------------------------------------------------------


def moments(mean: MeanOf, x: Array) -> tuple[Array, Array, Array | None, Array]:
    """Mean and biased variance of x, what to subtract from it at first (`find_shift`), and the mean of what remains.

    Statistics are in float64: rounded to float32, a mean is off by as much as small deviations. So is a mean of float64
    elements, which is why what remains has its own.
    """
    average = rest = mean(x)
    variance = mean(x, x) - average * average
    shift = find_shift(x.dtype, average, variance)
    if shift is not None:
        is_far = shift != 0
        centered = x - shift
        rest = xp(x).where(is_far, mean(centered), average)
        rounded = xp(x).where(is_far, shift + rest, 0).astype(x.dtype)
        if device_of(x).is_async or (rounded != shift).any():
            shift = rounded
            centered = x - shift
            rest = xp(x).where(is_far, mean(centered), average)
        average = xp(x).where(is_far, shift + rest, average)
        variance = xp(x).where(is_far, mean(centered, centered) - rest * rest, variance)
    return average, variance, shift, rest


def find_shift(dtype: Any, average: Array, variance: Array, far: float | None = None) -> Array | None:
    """What to subtract from elements at first: their mean, rounded to their dtype, or 0 where it is near zero.

    None if all means are near zero, unless it takes time to ask the device. `far` is the multiple of the variance that
    the square of a mean exceeds where it is far from zero, by default `tuning.FAR_FROM_ZERO`. So is the mean of
    elements whose squares overflow, which makes the variance infinite or NaN.
    """
    is_far = ~(average * average <= (tuning.FAR_FROM_ZERO if far is None else far) * variance) | (variance == math.inf)
    if not device_of(average).is_async and not is_far.any():
        return None
    return xp(average).where(is_far, average, 0).astype(dtype)


def find_line(
    dtype: Any, rest: Array, variance: Array, eps: float, weight: Array | None = None, bias: Array | None = None
) -> tuple[Array, Array, Array | None, Array | None]:
    """What makes (x - shift - rest) / sqrt(variance + eps) · weight + bias of x - shift: arguments of `apply_line`.

    The rest is the mean of x - shift: that of x if there is no shift.
    """
    scale = (variance + eps) ** -0.5
    offset = -rest * scale
    if weight is not None and (weight.shape == scale.shape or _folds(weight, scale)):
        scale, offset, weight = scale * weight, offset * weight, None
    if weight is None and bias is not None and (bias.shape == scale.shape or _folds(bias, scale)):
        offset, bias = offset + bias, None
    return scale.astype(dtype, copy=False), offset.astype(dtype, copy=False), weight, bias


def apply_line(
    x: Array, shift: Array | None, scale: Array, offset: Array, weight: Array | None = None, bias: Array | None = None,
    rectified: bool = False, out: Array | None = None,
) -> Array:  # fmt: skip
    """((x - shift) · scale + offset) · weight + bias, max(it, 0) if `rectified`, written into `out`."""
    if shift is not None:
        x = xp(x).subtract(x, shift, out=out)
    y = xp(x).multiply(x, scale, out=out)
    y += offset
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return rectify(y, out=y) if rectified else y


def _folds(value: Array, scale: Array) -> bool:
    """Whether a value that broadcasts to the array is the same for all elements that are normalized together."""
    lead = scale.ndim - value.ndim
    return all(n in (1, scale.shape[lead + i]) for i, n in enumerate(value.shape))


# ---- backward --------------------------------------------------------------------------------------------------------


def gradient_line(
    dtype: Any, average: Array, total: Array, product: Array, scale: Array, factor: Array
) -> tuple[Array, Array, Array]:
    """What makes (grad - total - (x - average) · product · scale²) · factor of grad and x: for `input_gradient`.

    Total and product are the means of grad and of grad · (x - average); factor is scale · weight.
    """
    slope = product * scale * scale
    offset = (average * slope - total).astype(dtype, copy=False)
    return (-slope).astype(dtype, copy=False), offset, factor.astype(dtype, copy=False)


def input_gradient(
    grad: Array, x: Array, slope: Array, offset: Array, factor: Array, out: Array | None = None
) -> Array:
    """The gradient in x: (x · slope + grad + offset) · factor. `out` may be grad itself."""
    result = xp(grad).multiply(x, slope, out=None if out is grad else out)
    result = xp(grad).add(result, grad, out=result if out is None else out)
    result += offset
    result *= factor
    return result
