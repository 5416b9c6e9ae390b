"""Normalization of parts of a batch on GPUs: two launches forward and two backward, with an exchange between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.grids import in_order_of
from needle.kernels.gpu.norm import in_rows, is_tracked, launch, pointers, running_struct
from needle.kernels.gpu.source import Source, fits, generic, replaces
from needle.kernels.layout import Array
from needle.kernels.normalize import Running
from needle.kernels.normalize_part import part_gradient, part_gradient_sums, part_moments, standardize_part

source = Source("norm_parts.cu")
MOST = 100  # parts, as in the source
PARTS = np.dtype([("each", "u8", MOST), ("count", "i4")], align=True)


@replaces(part_moments)
def part_moments_of_rows(x: Array, axes: tuple[int, ...]) -> Array:
    served = in_rows(x, axes, None, None)
    if served is None:
        return generic(part_moments)(x, axes)
    x, rows, _ = served
    part = device_of(x).xp.empty(1 + 2 * rows.count, "float64")
    launch(source, "part_moments", rows, rows.view(x), part, np.int32(rows.length))
    return part


@replaces(standardize_part)
def standardize_part_of_rows(
    x: Array, weight: Array | None, bias: Array | None, rows: Sequence[Array], axes: tuple[int, ...], eps: float,
    rectified: bool = False, running: Running | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    served = in_rows(x, axes, weight, bias)
    if served is None or not is_tracked(running) or len(rows) > MOST:
        return generic(standardize_part)(x, weight, bias, rows, axes, eps, rectified, running)
    x, view, affine = served
    device = device_of(x)
    y = device.xp.empty((view.count, view.length), x.dtype)
    mean, variance = (device.xp.empty(view.column_shape, "float64") for _ in range(2))
    count = device.xp.empty((1,) * x.ndim, "float64")
    parts = np.zeros(1, PARTS)
    parts["each"][0, : len(rows)] = [device.address(row) for row in rows]
    parts["count"] = len(rows)
    arguments = (view.view(x), *pointers(weight, bias), parts[0], y, mean, variance, count, running_struct(running))
    last = affine, np.int32(view.length), np.float64(eps), np.int32(rectified)
    launch(source, "standardize_part", view, *arguments, *last)
    return view.unview(y), mean, variance, count


@replaces(part_gradient_sums)
def part_gradient_sums_of_rows(
    grad: Array, x: Array, y: Array | None, weight: Array | None, bias: Array | None, average: Array, variance: Array,
    axes: tuple[int, ...], eps: float,
) -> tuple[Array, Array, Array | None, Array | None]:  # fmt: skip
    served = in_rows(x, axes, weight, bias)
    if served is None or not fits(grad):
        return generic(part_gradient_sums)(grad, x, y, weight, bias, average, variance, axes, eps)
    x, rows, _ = served
    xp = device_of(x).xp
    grad, y = in_order_of(x, grad), None if y is None else in_order_of(x, y)
    masked = None if y is None else xp.empty((rows.count, rows.length), x.dtype)
    sums = xp.empty((2, *average.shape), "float64")
    grads = [None if value is None else xp.empty(value.shape, x.dtype) for value in (weight, bias)]
    views = [None if array is None else rows.view(array) for array in (grad, x, y)]
    arguments = pointers(*views, average, variance, masked, sums, *grads)
    launch(source, "part_gradient_sums", rows, *arguments, np.int32(rows.length), np.float64(eps))
    return grad if masked is None else rows.unview(masked), sums, *grads


@replaces(part_gradient)
def part_gradient_of_rows(
    grad: Array, x: Array, weight: Array | None, average: Array, variance: Array, sums: Array, count: Array,
    axes: tuple[int, ...], eps: float, in_place: bool = False,
) -> Array:  # fmt: skip
    served = in_rows(x, axes, weight, None)
    if served is None or not fits(grad):
        return generic(part_gradient)(grad, x, weight, average, variance, sums, count, axes, eps, in_place)
    x, rows, affine = served
    grad = rows.view(in_order_of(x, grad))
    x_grad = grad if in_place else device_of(x).xp.empty((rows.count, rows.length), x.dtype)
    statistics = average, variance, sums, count
    last = affine, np.int32(rows.length), np.float64(eps)
    launch(source, "part_gradient", rows, grad, rows.view(x), *pointers(weight), *statistics, x_grad, *last)
    return rows.unview(x_grad)
