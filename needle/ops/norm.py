"""Normalisation: elements brought to mean 0 and variance 1 over some axes, scaled and shifted.

The gradient is written twice: with ops, where it is to be differentiated again, and as one op that works in place,
where it is not, which is what training needs (a third of the time). Its formulas: Ioffe and Szegedy, "Batch
Normalization" (2015), section 3.
"""

from __future__ import annotations

import math

from needle import check
from needle.autograd import TensorTupleOp
from needle.backend_ndarray import xp
from needle.grad_mode import is_grad_enabled
from needle.lazy import Outline
from needle.ops.arithmetic import add_scalar, multiply, power_scalar, subtract
from needle.ops.operand import tensor
from needle.ops.reduce import mean
from needle.ops.shape import SumTo, sum_to


class Standardize(TensorTupleOp):
    """(x - mean) / sqrt(variance + eps) · weight + bias, and the mean and variance over `axes`, which stay with size 1.

    The inputs are x and, where `scaled`, a weight and, where `shifted`, a bias; both broadcast to x. The variance is
    the biased one. Mean and variance are constants for the graph.
    """

    def __init__(self, axes, eps, scaled, shifted):
        self.axes, self.eps, self.scaled, self.shifted = axes, eps, scaled, shifted

    def compute(self, x, *affine):
        average = x.mean(axis=self.axes, keepdims=True)
        y = x - average
        variance = xp(x).square(y).mean(axis=self.axes, keepdims=True)
        scale = (variance + self.eps) ** -0.5
        if self.scaled and self.is_one_scale(affine[0], x):
            y *= scale * affine[0]
        else:
            y *= scale
            if self.scaled:
                y *= affine[0]
        if self.shifted:
            y += affine[-1]
        return y, average, variance

    def is_one_scale(self, weight, x):
        """Whether a weight is the same for all elements of x that are normalised together."""
        lead = x.ndim - weight.ndim
        return all(weight.shape[axis - lead] == 1 for axis in self.axes if axis >= lead)

    def infer(self, x, *affine):
        statistics = Outline(tuple(1 if i in self.axes else n for i, n in enumerate(x.shape)), x.dtype)
        return Outline(x.shape, x.dtype), statistics, statistics

    def gradient(self, out_grad, node):
        x, *affine = node.inputs
        y_grad = out_grad[0]
        if not is_grad_enabled():
            statistics = (node[1].detach(), node[2].detach())
            grads = StandardizeGradient(self)(y_grad, x, *statistics, *affine).tuple()
            return tuple(grad if given.requires_grad else None for grad, given in zip(grads, node.inputs, strict=True))
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
        return tuple(grads)


class StandardizeGradient(TensorTupleOp):
    """The gradients of `forward`, a Standardize, in x, weight and bias; its inputs are that of y, x, mean and variance,
    and the weight and bias. A constant for the graph."""

    differentiable = False

    def __init__(self, forward):
        self.forward = forward

    def compute(self, grad, x, average, variance, *affine):
        forward, scale = self.forward, (variance + self.forward.eps) ** -0.5
        unit = x - average
        unit *= scale
        product, weighted, parts = grad * unit, grad, []
        if forward.scaled:
            weight = affine[0]
            parts.append(SumTo(weight.shape).compute(product))
            if forward.is_one_scale(weight, x):
                scale = scale * weight
            else:
                weighted = grad * weight
                xp(x).multiply(weighted, unit, out=product)
        if forward.shifted:
            parts.append(SumTo(affine[-1].shape).compute(grad))
        unit *= product.mean(axis=forward.axes, keepdims=True)
        unit += weighted.mean(axis=forward.axes, keepdims=True)
        xp(x).subtract(weighted, unit, out=unit)
        unit *= scale
        return (unit, *parts)

    def infer(self, grad, x, average, variance, *affine):
        return (x, *affine)


def standardize(x, axes, weight=None, bias=None, eps=1e-5):
    """x brought to mean 0 and variance 1 over `axes`, · weight + bias; and its mean and biased variance over them.

    Weight and bias broadcast to x; `axes` stay in the statistics with size 1. The statistics are constants.
    """
    x = tensor("standardize", x)
    axes = check.axes("standardize", axes, x.ndim)
    check.number("standardize", "eps", eps, least=0)
    if not math.prod(x.shape[i] for i in axes):
        raise ValueError(f"standardize: axes must hold at least one element, but got axes {axes} of shape {x.shape}")
    affine = [tensor("standardize", value) for value in (weight, bias) if value is not None]
    y, average, variance = Standardize(axes, eps, weight is not None, bias is not None)(x, *affine)
    return y, average.detach(), variance.detach()
