"""Normalization to mean 0 and variance 1 over some axes, then scaling and shifting.

Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, which also has the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from needle import check, kernels, tuning
from needle.autograd import Tensor, TensorLike, TensorTuple, TensorTupleOp
from needle.backend import compute_dtype, cpu, device_of, xp
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, PowerScalar, as_dtype
from needle.ops.base import Array, Axes, Gradients
from needle.ops.elementwise import RELU_GRAD
from needle.ops.operand import floating, tensor
from needle.ops.reduce import Mean
from needle.ops.shape import Reshape, SumTo, sum_like
from needle.ops.tuples import pick

__all__ = ["standardize"]


class Standardize(TensorTupleOp):
    """(x - mean) / sqrt(variance + eps) · weight + bias, and the mean and variance over `axes`, kept with size 1.

    The inputs are x, a weight if `scaled`, and a bias if `shifted`; both broadcast to x, reshaped to `form` if it is
    not None. The variance is the biased one. Mean and variance are constants, in float64: rounded to float32, a mean is
    off by as much as the deviations of elements far from zero. If `rectified`, the result is max(y, 0), in the same
    pass.
    """

    saves_output = True

    def __init__(
        self, axes: Size, eps: float, scaled: bool, shifted: bool, form: Size | None = None, rectified: bool = False
    ) -> None:
        self.axes, self.eps, self.scaled, self.shifted, self.form = axes, eps, scaled, shifted, form
        self.rectified = rectified

    def compute(self, x: Array, *affine: Array) -> tuple[Array, ...]:
        affine = self.broadcast_affine(affine)
        rows = kernels.Rows.of(x, self.axes)
        if rows is None:
            return self.normalize(kernels.mean_over(self.axes), x, *affine)
        columns = [rows.column(value) for value in affine]
        if not any(column is None for column in columns):
            results: tuple[Array, ...] = rows.apply(partial(self.normalize, kernels.mean_of_rows), [x], columns)
            return results
        alone = Standardize(self.axes, self.eps, False, False)  # a weight varies along the rows
        y, average, variance = rows.apply(partial(alone.normalize, kernels.mean_of_rows), [x], [])
        if self.scaled:
            y *= affine[0]
        if self.shifted:
            y += affine[-1]
        return y.clip(0, math.inf, out=y) if self.rectified else y, average, variance

    def normalize(self, mean: kernels.MeanOf, x: Array, *affine: Array, out: Array | None = None) -> tuple[Array, ...]:
        """The result, written into `out` if it is not None, and the mean and variance of x."""
        average, variance, shift, rest = kernels.moments(mean, x)
        weight, bias = affine[0] if self.scaled else None, affine[-1] if self.shifted else None
        y = kernels.apply_moments(x, rest, variance, shift, self.eps, weight, bias, self.rectified, out)
        return y, average, variance

    def broadcast_affine(self, affine: Sequence[Array]) -> tuple[Array, ...]:
        """Weight and bias as raw arrays in the shape in which they broadcast to x."""
        return tuple(affine if self.form is None else [value.reshape(self.form) for value in affine])

    def is_per_row(self, weight: Array, x: Array) -> bool:
        """Whether one entry of a weight scales all elements of x that are normalized together."""
        lead = x.ndim - weight.ndim
        return all(weight.shape[axis - lead] == 1 for axis in self.axes if axis >= lead)

    def infer(self, x: Any, *affine: Any) -> tuple[Spec, ...]:
        shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        statistics = Spec(shape, cpu().xp.dtype("float64"))
        return Spec(x.shape, x.dtype), statistics, statistics

    def mean_of(self, node: Any) -> Callable[[Tensor], Tensor]:
        """The mean over all that was normalized together."""
        return Mean(self.axes, keepdims=True)

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        x, *affine = node.inputs
        y_grad = pick(out_grad, 0)
        if self.rectified:
            y_grad = RELU_GRAD(y_grad, pick(node, 0).detach())
        if self.form is not None:
            affine = [Reshape(self.form)(value) for value in affine]
        mean = self.mean_of(node)
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
        """All gradients from two passes over each chunk of rows: one for the means, one for the gradient in x."""
        (grad, *_), (y, average, variance) = out_grad, output
        values = self.broadcast_affine(affine)
        scale = (variance + self.eps) ** -0.5
        per_row = [self.is_per_row(value, x) for value in values]
        masks = (y,) if self.rectified else ()
        if masks and not (all(per_row) and grad.strides == y.strides):
            grad, masks = kernels.relu_grad(y, grad), ()  # in the memory order of y
        weighted, factor = grad, scale
        if self.scaled and per_row[0]:
            factor = scale * values[0]
        elif self.scaled:
            weighted = grad * values[0]
        count, shift = x.size // average.size, find_gradient_shift(x, average, variance)
        arrays, columns = (weighted, x, *masks), (average, scale, factor, *(() if shift is None else (shift,)))
        rows = kernels.Rows.of(x, self.axes)
        if rows:
            body = partial(_backward, kernels.mean_of_rows, rectified=bool(masks))
            x_grad, total, product = rows.apply(body, arrays, [rows.column(column) for column in columns])
        else:
            x_grad, total, product = _backward(
                kernels.mean_over(self.axes), *arrays, *columns, rectified=bool(masks)
            )
        partials = []
        if self.scaled:
            if per_row[0]:
                partials.append(product * scale * count)
            else:
                rest = average if shift is None else average - shift
                unit = kernels.apply_moments(x, rest, variance, shift, self.eps)
                unit *= grad
                partials.append(unit)
        if self.shifted:
            partials.append(total * count if all(per_row) else grad)
        grads = [x_grad]
        for partial_sum, value, parameter in zip(partials, values, affine, strict=True):
            summed = partial_sum if partial_sum.shape == value.shape else SumTo(value.shape).compute(partial_sum)
            grads.append(summed.reshape(parameter.shape).astype(x.dtype, copy=False))
        return tuple(grad if need else None for grad, need in zip(grads, needed, strict=True))


def find_gradient_shift(x: Array, average: Array, variance: Array) -> Array | None:
    """`find_shift` for the gradient."""
    is_short = x.size // average.size < tuning.LONG_ROW
    far = tuning.FAR_FROM_ZERO_SHORT if is_short else tuning.FAR_FROM_ZERO_LONG
    return kernels.find_shift(x.dtype, average, variance, far)


def _backward(
    mean: kernels.MeanOf, grad: Array, x: Array, *others: Array, rectified: bool, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradient in x, written into `out` if it is not None, and the means of grad and of grad · (x - average).

    The others are y if `rectified`, the columns average, scale, factor, and what to subtract from x first, if anything.
    """
    if rectified:
        grad, others = kernels.where_positive(others[0], grad), others[1:]
    average, scale, factor, *shifts = others
    for shift in shifts:  # where it is 0, the bits stay: no row depends on others
        if device_of(x).is_async or shift.any():
            x, average = xp(x).subtract(x, shift, out=out), average - shift
    total, product = kernels.gradient_means(mean, grad, x, average)
    return kernels.input_gradient(grad, x, average, total, product, scale, factor, out), total, product


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
    x: Tensor, axes: Size, weight: Tensor | None, bias: Tensor | None, eps: float, form: Size | None = None,
    rectified: bool = False, op: Callable[..., Standardize] = Standardize,
) -> tuple[Tensor, TensorTuple]:  # fmt: skip
    """The y of `standardize`, of checked arguments, and the result of the op, with statistics in float64.

    With `rectified`, max(y, 0).
    """
    operands = [value for value in (x, weight, bias) if value is not None]
    narrow = [value.spec.dtype.itemsize < 4 for value in operands]
    if True in narrow:
        operands = [as_dtype(value, compute_dtype(value.dtype)) for value in operands]
    result = op(axes, eps, weight is not None, bias is not None, form, rectified)(*operands)
    y = pick(result, 0)
    return as_dtype(y, x.dtype) if narrow[0] else y, result
