"""Normalization as a whole, forward and backward: by chunks of rows, where an array is laid out in rows.

Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, which also has the gradient.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from needle import tuning
from needle.backend import device_of, overridable, with_choices, xp
from needle.kernels.activation import relu_grad, where_positive
from needle.kernels.layout import Array
from needle.kernels.reduce import summed_to
from needle.kernels.rows import Rows
from needle.kernels.standardize import (
    MeanOf,
    apply_line,
    find_line,
    find_shift,
    gradient_line,
    input_gradient,
    mean_of_rows,
    mean_over,
    moments,
)

__all__ = ["Running", "find_gradient_shift", "standardize_array", "standardize_gradients"]


class Running(NamedTuple):
    """Running mean and variance (C,) and the number of batches (), int64, if it is counted; all written in place.

    running = (1 - momentum) · running + momentum · batch, with the variance divided by the count less 1 if `unbiased`.
    """

    mean: Array
    variance: Array
    counter: Array | None
    momentum: float
    unbiased: bool

    def move(self, average: Array, variance: Array, count: int | Array) -> None:
        """Move the statistics towards those of a batch, in float64, that has `count` elements for each; not if it is 0.

        A count that the device alone knows is an array ().
        """
        share = self.momentum * (count > 0)
        scales = share, share * (count / (count - (count != 1))) if self.unbiased else share
        for running, batch, scale in zip((self.mean, self.variance), (average, variance), scales, strict=True):
            running[...] = running.astype(batch.dtype, copy=False) * (1 - share) + batch.reshape(running.shape) * scale
        if self.counter is not None:
            self.counter[...] += 1


# ---- forward ---------------------------------------------------------------------------------------------------------


@overridable
def standardize_array(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, rectified: bool = False,
    running: Running | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) · weight + bias, and mean and variance over `axes`, in float64, kept as size 1.

    Weight and bias broadcast to x. The result is max(y, 0) if `rectified`; `running` moves towards the statistics.
    """
    y, average, variance = with_choices(_standardized, x, weight, bias, axes, eps, rectified)
    if running is not None:
        running.move(average, variance, x.size // average.size)
    return y, average, variance


def _standardized(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, rectified: bool
) -> tuple[Array, Array, Array]:
    scaled, shifted = weight is not None, bias is not None
    affine = [value for value in (weight, bias) if value is not None]
    work = partial(_forward, eps=eps, scaled=scaled, shifted=shifted, rectified=rectified)
    rows = Rows.of(x, axes)
    if rows is None:
        return work(mean_over(axes), x, *affine)
    columns = [rows.column(value) for value in affine]
    if not any(column is None for column in columns):
        results: tuple[Array, Array, Array] = rows.apply(partial(work, mean_of_rows), [x], columns)
        return results
    alone = partial(_forward, mean_of_rows, eps=eps, scaled=False, shifted=False)  # a weight varies along the rows
    y, average, variance = rows.apply(alone, [x], [])
    if scaled:
        y *= weight
    if shifted:
        y += bias
    return y.clip(0, math.inf, out=y) if rectified else y, average, variance


def _forward(
    mean: MeanOf, x: Array, *affine: Array, eps: float, scaled: bool, shifted: bool, rectified: bool = False,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The result, written into `out` if it is not None, and the mean and variance of x."""
    average, variance, shift, rest = moments(mean, x)
    weight, bias = affine[0] if scaled else None, affine[-1] if shifted else None
    y = apply_line(x, shift, *find_line(x.dtype, rest, variance, eps, weight, bias), rectified, out)
    return y, average, variance


# ---- backward --------------------------------------------------------------------------------------------------------


@overridable
def standardize_gradients(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    """The gradients in x, weight and bias, in their shapes, from two passes over each chunk of rows.

    One pass is for the means, one for the gradient in x. y is the result if that was rectified: it masks `grad`.
    """
    gradients: tuple[Array, Array | None, Array | None] = with_choices(
        _gradients, grad, x, y, weight, bias, average, variance, axes, eps
    )
    return gradients


def _gradients(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    scale = (variance + eps) ** -0.5
    per_row = [_is_per_row(value, x, axes) for value in (weight, bias) if value is not None]
    masks = () if y is None else (y,)
    if y is not None and not (all(per_row) and grad.strides == y.strides):
        grad, masks = relu_grad(y, grad), ()  # in the memory order of y
    weighted, factor = grad, scale
    if weight is not None and per_row[0]:
        factor = scale * weight
    elif weight is not None:
        weighted = grad * weight
    count, shift = x.size // average.size, find_gradient_shift(x, average, variance)
    arrays, columns = (weighted, x, *masks), (average, scale, factor, *(() if shift is None else (shift,)))
    rows = Rows.of(x, axes)
    if rows:
        body = partial(_backward, mean_of_rows, rectified=bool(masks))
        x_grad, total, product = rows.apply(body, arrays, [rows.column(column) for column in columns])
    else:
        x_grad, total, product = _backward(mean_over(axes), *arrays, *columns, rectified=bool(masks))
    weight_grad = bias_grad = None
    if weight is not None:
        if per_row[0]:
            weight_grad = product * scale * count
        else:
            rest = average if shift is None else average - shift
            weight_grad = apply_line(x, shift, *find_line(x.dtype, rest, variance, eps))
            weight_grad *= grad
        weight_grad = summed_to(weight.shape, weight_grad)
    if bias is not None:
        bias_grad = summed_to(bias.shape, total * count if all(per_row) else grad)
    return x_grad, weight_grad, bias_grad


def _is_per_row(value: Array, x: Array, axes: tuple[int, ...]) -> bool:
    """Whether one entry of a weight scales all elements of x that are normalized together."""
    lead = x.ndim - value.ndim
    return all(value.shape[axis - lead] == 1 for axis in axes if axis >= lead)


def find_gradient_shift(x: Array, average: Array, variance: Array) -> Array | None:
    """`find_shift` for the gradient."""
    is_short = x.size // average.size < tuning.LONG_ROW
    far = tuning.FAR_FROM_ZERO_SHORT if is_short else tuning.FAR_FROM_ZERO_LONG
    return find_shift(x.dtype, average, variance, far)


def _backward(
    mean: MeanOf, grad: Array, x: Array, *others: Array, rectified: bool, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradient in x, written into `out` if it is not None, and the means of grad and of grad · (x - average).

    The others are y if `rectified`, the columns average, scale, factor, and what to subtract from x first, if anything.
    """
    if rectified:
        grad, others = where_positive(others[0], grad), others[1:]
    average, scale, factor, *shifts = others
    for shift in shifts:  # where it is 0, the bits stay: no row depends on others
        if device_of(x).is_async or shift.any():
            x, average = xp(x).subtract(x, shift, out=out), average - shift
    total = mean(grad)
    product = mean(grad, x) - total * average
    terms = gradient_line(grad.dtype, average, total, product, scale, factor)
    return input_gradient(grad, x, *terms, out), total, product
