"""Normalization to mean 0 and variance 1 over some axes, then scaling and shifting.

Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, which also has the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from needle import check, kernels, tuning
from needle.autograd import Tensor, TensorLike, TensorTuple, TensorTupleOp
from needle.backend import compute_dtype, cpu, device_of, xp
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, PowerScalar, as_dtype
from needle.ops.base import Array, Axes, Gradients
from needle.ops.operand import floating, tensor
from needle.ops.reduce import Mean
from needle.ops.shape import Reshape, SumTo, sum_like
from needle.ops.tuples import pick

__all__ = ["standardize"]

MeanOf: TypeAlias = Callable[..., Array]  # the mean, in float64, of an array or of the product of two


class Standardize(TensorTupleOp):
    """(x - mean) / sqrt(variance + eps) · weight + bias, and the mean and variance over `axes`, kept with size 1.

    The inputs are x, a weight if `scaled`, and a bias if `shifted`; both broadcast to x, reshaped to `form` if it is
    not None. The variance is the biased one. Mean and variance are constants, in float64: rounded to float32, a mean is
    off by as much as the deviations of elements far from zero.
    """

    saves_output = True

    def __init__(self, axes: Size, eps: float, scaled: bool, shifted: bool, form: Size | None = None) -> None:
        self.axes, self.eps, self.scaled, self.shifted, self.form = axes, eps, scaled, shifted, form

    def compute(self, x: Array, *affine: Array) -> tuple[Array, ...]:
        affine = self.broadcast_affine(affine)
        rows = kernels.Rows.of(x, self.axes)
        columns = [rows.column(value) for value in affine] if rows else []
        if rows is None or any(column is None for column in columns):
            return self.normalize(_mean_over(self.axes), x, *affine)
        results: tuple[Array, ...] = rows.apply(partial(self.normalize, _mean_of_rows), [x], columns)
        return results

    def normalize(self, mean: MeanOf, x: Array, *affine: Array, out: Array | None = None) -> tuple[Array, ...]:
        """The result, written into `out` if it is not None, and the mean and variance of x."""
        average, dtype = mean(x), x.dtype
        y = xp(x).subtract(x, average.astype(dtype, copy=False), out=out)
        variance = mean(y, y)
        is_far = _is_far(average, variance)
        if device_of(x).is_async or bool(is_far.any()):
            # The rounding error of the mean shows beside such deviations: it is their mean. No row depends on others.
            average = xp(x).where(is_far, average.astype(dtype, copy=False) + mean(y), average)
            y = xp(x).subtract(x, average.astype(dtype, copy=False), out=y)
            y -= xp(x).where(is_far, mean(y), 0).astype(dtype, copy=False)
            variance = mean(y, y)
        scale = (variance + self.eps) ** -0.5
        if self.scaled and affine[0].shape == scale.shape:
            y *= (scale * affine[0]).astype(dtype, copy=False)
        else:
            y *= scale.astype(dtype, copy=False)
            if self.scaled:
                y *= affine[0]
        if self.shifted:
            y += affine[-1]
        return y, average, variance

    def broadcast_affine(self, affine: Sequence[Array]) -> tuple[Array, ...]:
        """Weight and bias as raw arrays in the shape in which they broadcast to x."""
        return tuple(affine) if self.form is None else tuple(value.reshape(self.form) for value in affine)

    def is_per_row(self, weight: Array, x: Array) -> bool:
        """Whether one entry of a weight scales all elements of x that are normalized together."""
        lead = x.ndim - weight.ndim
        return all(weight.shape[axis - lead] == 1 for axis in self.axes if axis >= lead)

    def infer(self, x: Any, *affine: Any) -> tuple[Spec, ...]:
        shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        statistics = Spec(shape, cpu().xp.dtype("float64"))
        return Spec(x.shape, x.dtype), statistics, statistics

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        x, *affine = node.inputs
        y_grad = pick(out_grad, 0)
        if self.form is not None:
            affine = [Reshape(self.form)(value) for value in affine]
        mean = Mean(self.axes, keepdims=True)
        centered = ADD(x, NEGATE(as_dtype(pick(node, 1).detach(), x.dtype)))  # a shift, which changes no derivative
        centered = ADD(centered, NEGATE(mean(centered)))
        variance = mean(MULTIPLY(centered, centered))
        scale = PowerScalar(-0.5)(AddScalar(self.eps)(variance))
        unit = MULTIPLY(centered, scale)
        grad = MULTIPLY(y_grad, affine[0]) if self.scaled else y_grad
        # x_grad = (grad - mean(grad) - unit · mean(grad · unit)) · scale
        along = MULTIPLY(unit, mean(MULTIPLY(grad, unit)))
        across = ADD(ADD(grad, NEGATE(mean(grad))), NEGATE(along))
        grads = [MULTIPLY(across, scale)]
        if self.scaled:
            grads.append(sum_like(MULTIPLY(y_grad, unit), affine[0]))
        if self.shifted:
            grads.append(sum_like(y_grad, affine[-1]))
        return tuple(
            grad if grad.shape == value.shape else Reshape(value.shape)(grad)
            for grad, value in zip(grads, node.inputs, strict=True)
        )

    def compute_gradient(
        self, out_grad: tuple[Array, ...], output: tuple[Array, ...], x: Array, *affine: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        """All gradients in one pass over chunks of rows, in place: a third of the time of `gradient`."""
        (grad, *_), (_, average, variance) = out_grad, output
        values = self.broadcast_affine(affine)
        scale = (variance + self.eps) ** -0.5
        per_row = [self.is_per_row(value, x) for value in values]
        weighted, factor = grad, scale
        if self.scaled and per_row[0]:
            factor = scale * values[0]
        elif self.scaled:
            weighted = grad * values[0]
        columns, rows = (average, scale, factor), kernels.Rows.of(x, self.axes)
        if rows:
            body = partial(_backward, _mean_of_rows)
            x_grad, total, product = rows.apply(body, [weighted, x], [rows.column(column) for column in columns])
        else:
            x_grad, total, product = _backward(_mean_over(self.axes), weighted, x, *columns)
        partials, count = [], x.size // average.size
        if self.scaled:
            if per_row[0]:
                partials.append(product * scale * count)
            else:
                center = average.astype(x.dtype, copy=False)
                unit = x - center
                if device_of(x).is_async or bool(_is_far(average, variance).any()):
                    unit -= (average - center).astype(x.dtype, copy=False)
                unit *= scale.astype(x.dtype, copy=False)
                unit *= grad
                partials.append(unit)
        if self.shifted:
            partials.append(total * count if all(per_row) else grad)
        grads = [x_grad]
        for partial_sum, value, parameter in zip(partials, values, affine, strict=True):
            summed = partial_sum if partial_sum.shape == value.shape else SumTo(value.shape).compute(partial_sum)
            grads.append(summed.reshape(parameter.shape).astype(x.dtype, copy=False))
        return tuple(grad if need else None for grad, need in zip(grads, needed, strict=True))


def _backward(
    mean: MeanOf, grad: Array, x: Array, average: Array, scale: Array, factor: Array, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradient in x, written into `out` if it is not None, and the means of grad and of grad · (x - average)."""
    center, dtype = average.astype(x.dtype, copy=False), x.dtype
    unit = xp(x).subtract(x, center, out=out)
    total, drift = mean(grad), average - center
    product = mean(grad, unit) - total * drift
    slope = product * scale * scale
    unit *= slope.astype(dtype, copy=False)
    unit += (total - drift * slope).astype(dtype, copy=False)
    xp(x).subtract(grad, unit, out=unit)
    unit *= factor.astype(dtype, copy=False)
    return unit, total, product


def _is_far(average: Array, variance: Array) -> Array:
    """Whether a mean, rounded to the dtype of its elements, is off by more than the rounding of their deviations."""
    return average * average > tuning.FAR_FROM_ZERO * variance


def _mean_over(axes: Size) -> MeanOf:
    """The mean of an array, or of the product of two, over axes that stay with size 1."""
    return lambda x, *other: kernels.means(xp(x).multiply(x, *other) if other else x, axes, "float64")


def _mean_of_rows(x: Array, *other: Array) -> Array:
    """The mean of each row (R, M), or of the product of two: (R, 1)."""
    total = kernels.row_products(x, *other) if other else kernels.row_sums(x)
    return total.astype("float64", copy=False) / x.shape[1]


# ---- functions -------------------------------------------------------------------------------------------------------


def standardize(
    x: TensorLike,
    axes: Axes,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
    form: Size | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """x `(*S)` normalized to mean 0 and variance 1 over `axes`, · weight + bias; with its mean and biased variance.

    y = (x - mean) / sqrt(variance + eps) · weight + bias has the shape and dtype of x; integers become float32. Weight
    and bias broadcast to x, reshaped to `form` if it is not None. `axes` stay in the statistics with size 1. The
    statistics are returned as constants, but the gradient of y accounts for them. float16 is computed in float32, the
    dtype of its statistics. Elements that are all equal become exact zeros.

    Raises `ValueError` if `eps` is negative or `axes` hold no element, and for axes as `summation` does. Source: Ioffe
    and Szegedy, "Batch Normalization" (2015), section 3.
    """
    x = floating("standardize", x)
    axes = check.axes("standardize", axes, x.ndim)
    check.number("standardize", "eps", eps, least=0)
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"standardize: axes must hold at least one element, but got axes {axes} of shape {x.shape}")
    weight, bias = (None if value is None else tensor("standardize", value) for value in (weight, bias))
    y, result = standardized(x, axes, weight, bias, eps, form)
    average, variance = (as_dtype(pick(result, i).detach(), compute_dtype(x.dtype)) for i in (1, 2))
    return y, average, variance


def standardized(
    x: Tensor, axes: Size, weight: Tensor | None, bias: Tensor | None, eps: float, form: Size | None = None
) -> tuple[Tensor, TensorTuple]:
    """The y of `standardize`, of checked arguments, and the result of the op, with statistics in float64."""
    operands = [value for value in (x, weight, bias) if value is not None]
    narrow = [value.spec.dtype.itemsize < 4 for value in operands]
    if True in narrow:
        operands = [as_dtype(value, compute_dtype(value.dtype)) for value in operands]
    result = Standardize(axes, eps, weight is not None, bias is not None, form)(*operands)
    y = pick(result, 0)
    return as_dtype(y, x.dtype) if narrow[0] else y, result
