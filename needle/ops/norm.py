"""Normalisation: elements brought to mean 0 and variance 1 over some axes, scaled and shifted.

The gradient is written twice: with ops, where it is to be differentiated again, and as one op that works in place,
where it is not, which is what training needs (a third of the time). Its formulas: Ioffe and Szegedy, "Batch
Normalization" (2015), section 3.
"""

from __future__ import annotations

import math
from functools import partial

from needle import check, kernels
from needle.autograd import TensorTupleOp
from needle.backend import xp
from needle.grad_mode import is_grad_enabled
from needle.lazy import Spec
from needle.ops.arithmetic import add_scalar, multiply, power_scalar, subtract
from needle.ops.operand import tensor
from needle.ops.reduce import mean
from needle.ops.shape import SumTo, reshape, sum_to


class Standardize(TensorTupleOp):
    """(x - mean) / sqrt(variance + eps) · weight + bias, and the mean and variance over `axes`, which stay with size 1.

    The inputs are x and, where `scaled`, a weight and, where `shifted`, a bias; both broadcast to x in the shape
    `form`, if that is given. The variance is the biased one. Mean and variance are constants for the graph.
    """

    def __init__(self, axes, eps, scaled, shifted, form=None):
        self.axes, self.eps, self.scaled, self.shifted, self.form = axes, eps, scaled, shifted, form

    def compute(self, x, *affine):
        affine = self.formed(affine)
        rows = kernels.Rows.of(x, self.axes)
        columns = [rows.column(value) for value in affine] if rows else [None]
        if any(column is None for column in columns):
            return self.passes(_mean_over(self.axes), x, *affine)
        return rows.apply(partial(self.passes, _mean_of_rows), [x], columns)

    def passes(self, mean, x, *affine, out=None):
        """The result, of which the first part goes into `out` where that is given."""
        average = mean(x)
        y = xp(x).subtract(x, average, out=out)
        variance = mean(y, y)
        scale = (variance + self.eps) ** -0.5
        if self.scaled and affine[0].shape == scale.shape:
            y *= scale * affine[0]
        else:
            y *= scale
            if self.scaled:
                y *= affine[0]
        if self.shifted:
            y += affine[-1]
        return y, average, variance

    def formed(self, affine):
        """Weight and bias, raw or as tensors, in the shape in which they broadcast."""
        return [value.reshape(self.form) for value in affine] if self.form else affine

    def is_one_scale(self, weight, x):
        """Whether a weight is the same for all elements of x that are normalised together."""
        lead = x.ndim - weight.ndim
        return all(weight.shape[axis - lead] == 1 for axis in self.axes if axis >= lead)

    def infer(self, x, *affine):
        statistics = Spec(tuple(1 if i in self.axes else n for i, n in enumerate(x.shape)), x.dtype)
        return Spec(x.shape, x.dtype), statistics, statistics

    def gradient(self, out_grad, node):
        x, *affine = node.inputs
        if not is_grad_enabled():
            grads = StandardizeGradient(self)(out_grad, node.detach(), x, *affine)
            return tuple(grads[i] if given.requires_grad else None for i, given in enumerate(node.inputs))
        y_grad, affine = out_grad[0], self.formed(affine)
        centred = subtract(x, mean(x, self.axes, keepdims=True))
        variance = mean(multiply(centred, centred), self.axes, keepdims=True)
        scale = power_scalar(add_scalar(variance, self.eps), -0.5)
        unit = multiply(centred, scale)
        grad = multiply(y_grad, affine[0]) if self.scaled else y_grad
        along = multiply(unit, mean(multiply(grad, unit), self.axes, keepdims=True))
        rest = subtract(subtract(grad, mean(grad, self.axes, keepdims=True)), along)
        grads = [multiply(rest, scale)]
        if self.scaled:
            grads.append(sum_to(multiply(y_grad, unit), affine[0].shape))
        if self.shifted:
            grads.append(sum_to(y_grad, affine[-1].shape))
        return tuple(reshape(grad, given.shape) for grad, given in zip(grads, node.inputs, strict=True))


class StandardizeGradient(TensorTupleOp):
    """The gradients of `forward`, a Standardize, in x, weight and bias; its inputs are the gradients of its results,
    these, and its inputs. A constant for the graph."""

    differentiable = False

    def __init__(self, forward):
        self.forward = forward

    def compute(self, grads, results, x, *given):
        (grad, *_), (_, average, variance), forward = grads, results, self.forward
        scale, affine = (variance + forward.eps) ** -0.5, forward.formed(given)
        uniform = [forward.is_one_scale(value, x) for value in affine]
        weighted, factor = grad, scale
        if forward.scaled and uniform[0]:
            factor = scale * affine[0]
        elif forward.scaled:
            weighted = grad * affine[0]
        columns, rows = (average, scale, factor), kernels.Rows.of(x, forward.axes)
        if rows:
            columns = map(rows.column, columns)
            x_grad, total, product = rows.apply(partial(_passes_back, _mean_of_rows), [weighted, x], columns)
        else:
            x_grad, total, product = _passes_back(_mean_over(forward.axes), weighted, x, *columns)
        parts, count = [], x.size // average.size
        if forward.scaled:
            product = product * scale * count if uniform[0] else grad * ((x - average) * scale)
            parts.append(product)
        if forward.shifted:
            parts.append(total * count if all(uniform) else grad)
        sums = (_sum_to(part, value.shape) for part, value in zip(parts, affine, strict=True))
        return (x_grad, *(part.reshape(value.shape) for part, value in zip(sums, given, strict=True)))

    def infer(self, grads, results, x, *affine):
        return (x, *affine)


def _passes_back(mean, grad, x, average, scale, factor, out=None):
    """The gradient in x, in `out` where that is given, and the means of grad and of grad · (x - average)."""
    unit = xp(x).subtract(x, average, out=out)
    total, product = mean(grad), mean(grad, unit)
    unit *= product * scale * scale
    unit += total
    xp(x).subtract(grad, unit, out=unit)
    unit *= factor
    return unit, total, product


def _mean_over(axes):
    """The function that gives the mean of an array, or of the product of two, over axes that stay."""
    return lambda x, *other: (xp(x).multiply(x, *other) if other else x).mean(axis=axes, keepdims=True)


def _mean_of_rows(x, *other):
    """The mean of each row (R, M), or of a product: (R, 1)."""
    return (kernels.row_products(x, *other) if other else kernels.row_sums(x)) / x.shape[1]


def _sum_to(x, shape):
    return x if x.shape == shape else SumTo(shape).compute(x)


def standardize(x, axes, weight=None, bias=None, eps=1e-5, form=None):
    """x brought to mean 0 and variance 1 over `axes`, · weight + bias; and its mean and biased variance over them.

    Weight and bias broadcast to x, in the shape `form` where that is given; `axes` stay in the statistics with size 1.
    The statistics are constants.
    """
    x = tensor("standardize", x)
    axes = check.axes("standardize", axes, x.ndim)
    check.number("standardize", "eps", eps, least=0)
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"standardize: axes must hold at least one element, but got axes {axes} of shape {x.shape}")
    affine = [tensor("standardize", value) for value in (weight, bias) if value is not None]
    y, average, variance = Standardize(axes, eps, weight is not None, bias is not None, form)(x, *affine)
    return y, average.detach(), variance.detach()
