"""Normalization of one part of a batch by the mean and variance of the whole; its other parts are computed elsewhere.

Of two functions, forward or backward, the first returns what the parts exchange for the second. With x they do what
those of `normalize` do. Weight and bias hold one number for all elements that are normalized together. A part may be
empty.

Source for merging the statistics of parts: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances" (1979), equations 1.5a and 1.5b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from needle.backend import overridable, with_choices, xp
from needle.kernels.activation import where_positive
from needle.kernels.layout import Array
from needle.kernels.normalize import Running, find_gradient_shift
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

__all__ = ["part_gradient", "part_gradient_sums", "part_moments", "standardize_part"]


@overridable
def part_moments(x: Array, axes: tuple[int, ...]) -> Array:
    """Of the elements of x that are normalized together: their number, means, and sums of squared deviations from them.

    A row (1 + 2 R,) of float64, for R means. It is for `standardize_part`.
    """
    size = math.prod(_statistics_shape(x, axes))
    if not x.size:
        return xp(x).zeros(1 + 2 * size)
    average, variance = with_choices(_statistics, x, axes)
    count = x.size // size
    row = xp(x).empty(1 + 2 * size)
    row[0] = count
    row[1 : 1 + size] = average.reshape(-1)
    row[1 + size :] = variance.reshape(-1) * count
    return row


@overridable
def standardize_part(
    x: Array, weight: Array | None, bias: Array | None, rows: Sequence[Array], axes: tuple[int, ...], eps: float,
    rectified: bool = False, running: Running | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """`standardize_array` of x by the statistics of the whole batch, merged from those of its parts.

    The rows are the `part_moments` of all parts, in their order. Behind mean and variance the result has the number of
    elements behind each, of shape (1, …, 1).
    """
    average, variance, count = _merge(x, rows, axes)
    (y,) = with_choices(_standardized, x, weight, bias, average, variance, axes, eps, rectified)
    if running is not None:
        running.move(average, variance, count.reshape(()))
    return y, average, variance, count


@overridable
def part_gradient_sums(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array, Array | None, Array | None]:  # fmt: skip
    """Behind grad: the sums of it and of it · (x - average), stacked, and this part's gradients in weight and bias.

    These have the shapes of weight and bias. y is the result if that was rectified: it masks grad, and what remains is
    a new array.
    """
    masked, sums = with_choices(_gradient_sums, grad, x, y, average, variance, axes)
    parameters = (weight, sums[1] * (variance + eps) ** -0.5), (bias, sums[0])
    grads = [None if value is None else each.reshape(value.shape).astype(x.dtype) for value, each in parameters]
    return grad if y is None else masked, sums, *grads


@overridable
def part_gradient(
    grad: Array, x: Array, weight: Array | None, average: Array, variance: Array, sums: Array, count: Array,
    axes: tuple[int, ...], eps: float, in_place: bool = False,
) -> Array:  # fmt: skip
    """The gradient in x, written over grad if `in_place`; from `part_gradient_sums`, whose sums have been added up."""
    scale = (variance + eps) ** -0.5
    terms = (*(sums / xp(x).maximum(count, 1)), scale, scale if weight is None else scale * weight)
    (x_grad,) = with_choices(_gradient, grad, x, average, variance, terms, axes, in_place)
    return x_grad


# ---- what values decide, each in one function ------------------------------------------------------------------------


def _statistics(x: Array, axes: tuple[int, ...]) -> tuple[Array, ...]:
    """Mean and variance of this part."""
    return _by_rows(_moments, axes, [x], [])[1:]


def _standardized(
    x: Array, weight: Array | None, bias: Array | None, average: Array, variance: Array, axes: tuple[int, ...],
    eps: float, rectified: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """(x - average) / sqrt(variance + eps) · weight + bias."""
    rest, shifts = _centered(average, find_shift(x.dtype, average, variance))
    scale, offset, *_ = find_line(x.dtype, rest, variance, eps, weight, bias)
    return _by_rows(partial(_apply, rectified=rectified), axes, [x], [scale, offset, *shifts])


def _gradient_sums(
    grad: Array, x: Array, y: Array | None, average: Array, variance: Array, axes: tuple[int, ...]
) -> tuple[Array | None, Array]:
    """What y leaves of grad, None without y, and the sums of `part_gradient_sums`."""
    rest, shifts = _centered(average, find_gradient_shift(x, average, variance))
    arrays = [x, grad] if y is None else [x, grad, y]
    if x.size:
        masked, total, product = _by_rows(partial(_gradient_means, rectified=y is not None), axes, arrays, shifts)
    else:
        masked, total, product = grad, xp(x).zeros_like(average), xp(x).zeros_like(average)
    sums = xp(x).stack([total, product - total * rest]) * (x.size // average.size)
    return None if y is None else masked, sums


def _gradient(
    grad: Array, x: Array, average: Array, variance: Array, terms: tuple[Array, ...], axes: tuple[int, ...],
    in_place: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """The gradient in x by those terms of `gradient_line` that follow the mean."""
    rest, shifts = _centered(average, find_gradient_shift(x, average, variance))
    columns = (*gradient_line(x.dtype, rest, *terms), *shifts)
    arrays, out = ([x], grad) if in_place else ([x, grad], None)
    return _by_rows(partial(_input_gradient, in_place=in_place), axes, arrays, columns, out)


def _by_rows(
    work: Callable[..., Any], axes: tuple[int, ...], arrays: Sequence[Array], columns: Sequence[Array],
    out: Array | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """`work(mean, *arrays, *columns, out=…)`, on chunks of rows if x, the first array, is laid out in rows."""
    rows = Rows.of(arrays[0], axes)
    if rows is None:
        results = work(mean_over(axes), *arrays, *columns, out=out)
    else:
        columns = [rows.column(column) for column in columns]
        results = rows.apply(partial(work, mean_of_rows), arrays, columns, out)
    return tuple(results)


def _merge(x: Array, rows: Sequence[Array], axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Mean, variance and count of all parts."""
    shape = _statistics_shape(x, axes)
    size = math.prod(shape)
    parts = [(row[:1], row[1 : 1 + size], row[1 + size :]) for row in rows]
    whole_count, mean, squares = parts[0]  # squares of the deviations from the mean, added up
    for count, other_mean, other_squares in parts[1:]:
        before, whole_count = whole_count, whole_count + count
        difference, share = other_mean - mean, count / xp(x).maximum(whole_count, 1)
        mean = mean + difference * share
        squares = squares + other_squares + difference * difference * (before * share)
    variance = squares / xp(x).maximum(whole_count, 1)
    return mean.reshape(shape), variance.reshape(shape), whole_count.reshape((1,) * x.ndim)


def _statistics_shape(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))


def _centered(average: Array, shift: Array | None) -> tuple[Array, tuple[Array, ...]]:
    """The mean of x - shift, and the columns that shift it, if any."""
    return (average, ()) if shift is None else (average - shift, (shift,))


def _moments(mean: MeanOf, x: Array, out: Array | None) -> tuple[Array, ...]:
    return (out, *moments(mean, x)[:2])


def _apply(
    mean: MeanOf, x: Array, scale: Array, offset: Array, shift: Array | None = None, *, rectified: bool,
    out: Array | None,
) -> tuple[Array]:  # fmt: skip
    return (apply_line(x, shift, scale, offset, rectified=rectified, out=out),)


def _gradient_means(
    mean: MeanOf, x: Array, grad: Array, *others: Array, rectified: bool, out: Array | None
) -> tuple[Array, ...]:
    """Behind grad, 0 where y is not positive if `rectified`: the means of it and of it · x.

    The others are y if `rectified`, and a column to subtract from x first, if there is one.
    """
    if rectified:
        grad, others = where_positive(others[0], grad, out), others[1:]
    for shift in others:
        x = x - shift
    return grad, mean(grad), mean(grad, x)


def _input_gradient(mean: MeanOf, x: Array, *others: Array, in_place: bool, out: Array | None) -> tuple[Array]:
    """The gradient in x. The others are grad, which is `out` if `in_place`, and columns.

    These are the terms of `gradient_line`, and what to subtract from x first, if anything.
    """
    grad, slope, offset, factor, *shifts = (out, *others) if in_place else others
    for shift in shifts:
        x = xp(x).subtract(x, shift, out=None if in_place else out)
    return (input_gradient(grad, x, slope, offset, factor, out),)
