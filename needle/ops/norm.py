"""Normalization to mean 0 and variance 1 over some axes, then scaling and shifting.

Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, which also has the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from needle import check, kernels
from needle.autograd import Tensor, TensorLike, TensorTuple, TensorTupleOp
from needle.backend import compute_dtype, cpu
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, AddScalar, PowerScalar, as_dtype
from needle.ops.base import Array, Axes, Gradients
from needle.ops.elementwise import RELU_GRAD
from needle.ops.operand import floating, tensor
from needle.ops.reduce import Mean
from needle.ops.shape import Reshape, sum_like
from needle.ops.tuples import pick

__all__ = ["standardize"]


class Tracking(NamedTuple):
    """How running statistics move: the parameters of `kernels.Running`, and whether a counter is the last input."""

    momentum: float
    unbiased: bool
    counts: bool


class Standardize(TensorTupleOp):
    """(x - mean) / sqrt(variance + eps) · weight + bias, and the mean and variance over `axes`, kept with size 1.

    The inputs are x, a weight if `scaled`, and a bias if `shifted`; both broadcast to x, reshaped to `form` if it is
    not None. The variance is the biased one. Mean and variance are constants, in float64: rounded to float32, a mean is
    off by as much as the deviations of elements far from zero. If `rectified`, the result is max(y, 0), in the same
    pass. With `tracking`, running statistics follow as inputs, constants; `compute` writes into them.
    """

    saves_output = True

    def __init__(
        self, axes: Size, eps: float, scaled: bool, shifted: bool, form: Size | None = None, rectified: bool = False,
        tracking: Tracking | None = None,
    ) -> None:  # fmt: skip
        self.axes, self.eps, self.scaled, self.shifted, self.form = axes, eps, scaled, shifted, form
        self.rectified, self.tracking = rectified, tracking

    @property
    def saved_inputs(self) -> range:
        return range(1 + self.scaled + self.shifted)

    def compute(self, x: Array, *others: Array) -> tuple[Array, ...]:
        affine, running = self.affine(others), None
        if self.tracking is not None:
            mean, variance, *counter = others[self.scaled + self.shifted :]
            momentum, unbiased, _ = self.tracking
            running = kernels.Running(mean, variance, counter[0] if counter else None, momentum, unbiased)
        return self.normalize(x, *affine, running)

    def normalize(
        self, x: Array, weight: Array | None, bias: Array | None, running: kernels.Running | None
    ) -> tuple[Array, ...]:
        """What `compute` returns, from parameters that broadcast to x."""
        return kernels.standardize_array(x, weight, bias, self.axes, self.eps, self.rectified, running)

    def affine(self, others: Sequence[Array]) -> tuple[Array | None, Array | None]:
        """Weight and bias as raw arrays in the shape in which they broadcast to x; None for what is missing."""
        values = others[: self.scaled + self.shifted]
        if self.form is not None:
            values = [value.reshape(self.form) for value in values]
        return values[0] if self.scaled else None, values[-1] if self.shifted else None

    def infer(self, x: Any, *affine: Any) -> tuple[Spec, ...]:
        shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        statistics = Spec(shape, cpu().xp.dtype("float64"))
        return Spec(x.shape, x.dtype), statistics, statistics

    def mean_of(self, node: Any) -> Callable[[Tensor], Tensor]:
        """The mean over all that was normalized together."""
        return Mean(self.axes, keepdims=True)

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        inputs = node.inputs[: 1 + self.scaled + self.shifted]
        x, *affine = inputs
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
        grads = [
            grad if grad.shape == value.shape else Reshape(value.shape)(grad)
            for grad, value in zip(grads, inputs, strict=True)
        ]
        return *grads, *[None] * (len(node.inputs) - len(inputs))

    def compute_gradient(
        self, out_grad: tuple[Array, ...], output: tuple[Array, ...], x: Array, *others: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        (grad, *_), (y, *statistics) = out_grad, output
        masks = y if self.rectified else None
        x_grad, *grads = self.gradients(grad, x, masks, *self.affine(others), *statistics, is_x_needed=needed[0])
        parameters = others[: self.scaled + self.shifted]
        given = [value for value in grads if value is not None]
        all_grads = [x_grad] + [
            value.reshape(parameter.shape).astype(x.dtype, copy=False)
            for value, parameter in zip(given, parameters, strict=True)
        ]
        all_grads += [None] * (len(others) - len(parameters))
        return tuple(value if need else None for value, need in zip(all_grads, needed, strict=True))

    def gradients(
        self, grad: Array, x: Array, masks: Array | None, weight: Array | None, bias: Array | None, average: Array,
        variance: Array, *_: Array, is_x_needed: bool,
    ) -> tuple[Array | None, ...]:  # fmt: skip
        """The gradients in x, weight and bias, from `normalize`'s statistics; `masks` is y if that is rectified."""
        return kernels.standardize_gradients(grad, x, masks, weight, bias, average, variance, self.axes, self.eps)


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
    rectified: bool = False, op: Callable[..., Standardize] = Standardize, running: Sequence[Tensor] = (),
) -> tuple[Tensor, TensorTuple]:  # fmt: skip
    """The y of `standardize`, of checked arguments, and the result of the op, with statistics in float64.

    With `rectified`, max(y, 0). `running` are the last inputs of an op with `tracking`.
    """
    operands = [value for value in (x, weight, bias) if value is not None]
    narrow = [value.spec.dtype.itemsize < 4 for value in operands]
    if True in narrow:
        operands = [as_dtype(value, compute_dtype(value.dtype)) for value in operands]
    result = op(axes, eps, weight is not None, bias is not None, form, rectified)(*operands, *running)
    y = pick(result, 0)
    return as_dtype(y, x.dtype) if narrow[0] else y, result
