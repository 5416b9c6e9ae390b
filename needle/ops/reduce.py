"""Reductions over any axes: an axis, several, or None for all; `keepdims` leaves them with size 1."""

from __future__ import annotations

import math

from needle import check, kernels
from needle.autograd import TensorOp
from needle.backend import cpu, xp
from needle.grad_mode import is_grad_enabled
from needle.lazy import Spec
from needle.ops.arithmetic import add, cast, divide, divide_scalar, multiply, negate, subtract
from needle.ops.base import dtype_of
from needle.ops.elementwise import exp
from needle.ops.logic import equal, where
from needle.ops.operand import tensor
from needle.ops.shape import broadcast_to, reshape


class Reduction(TensorOp):
    """A reduction over `axes`: an axis, several, or None for all."""

    def __init__(self, axes=None, keepdims=False):
        self.axes, self.keepdims = axes, keepdims

    def over(self, x):
        """The axes of x that are reduced, none of them negative."""
        return check.axes(type(self).__name__, self.axes, len(x.shape))

    def shaped(self, reduced, axes):
        """A raw array whose reduced axes have size 1 in the shape of the result."""
        return reduced if self.keepdims else reduced.squeeze(axes)

    def kept(self, reduced, x):
        """A tensor shaped as the result, with the reduced axes of x as size 1."""
        axes = self.over(x)
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        return reduced if reduced.shape == shape else reshape(reduced, shape)

    def infer(self, x):
        axes = self.over(x)
        kept = [(i not in axes, n) for i, n in enumerate(x.shape)]
        return Spec(tuple(n if keep else 1 for keep, n in kept if keep or self.keepdims), dtype_of(self, x))


class Summation(Reduction):
    """The sum."""

    reads_inputs = False

    def compute(self, x):
        axes = self.over(x)
        return self.shaped(kernels.sums(x, axes), axes)

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return broadcast_to(self.kept(out_grad, x), x.shape)


class Mean(Reduction):
    """The arithmetic mean."""

    reads_inputs = False

    def compute(self, x):
        axes = self.over(x)
        if x.dtype.kind != "f" or x.dtype.itemsize < 4:  # NumPy sums halves in float32 for it
            return x.mean(axis=axes, keepdims=self.keepdims)
        return self.shaped(kernels.sums(x, axes) / math.prod(x.shape[i] for i in axes), axes)

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        count = math.prod(x.shape[i] for i in self.over(x))
        return broadcast_to(self.kept(divide_scalar(out_grad, count), x), x.shape)


class Extreme(Reduction):
    """The largest or the smallest element; elements that share the first place share the gradient evenly."""

    reads_output = True

    def __init__(self, name, axes=None, keepdims=False):
        super().__init__(axes, keepdims)
        self.name = name

    def compute(self, x):
        return getattr(x, self.name)(axis=self.over(x), keepdims=self.keepdims)

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        first = equal(x, self.kept(node, x))
        count = summation(first, self.axes, keepdims=True)
        return where(first, divide(self.kept(out_grad, x), cast(count, out_grad.dtype)), 0)


class LogSumExp(Reduction):
    """log(sum(exp(x))), with the maximum taken out so that nothing overflows."""

    reads_output = True

    def compute(self, x):
        axes = self.over(x)
        top = x.max(axis=axes, keepdims=True)
        top = xp(x).where(xp(x).isfinite(top), top, 0)
        total = xp(x).exp(x - top).sum(axis=axes, keepdims=True)
        out = xp(x).log(total) + top
        return out if self.keepdims else out.reshape([n for i, n in enumerate(x.shape) if i not in axes])

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return multiply(self.kept(out_grad, x), exp(subtract(x, self.kept(node, x))))


class _AlongAxis(TensorOp):
    """An op on the lines along one axis, whose gradient reads its result."""

    reads_inputs, reads_output = False, True

    def __init__(self, axis=-1):
        self.axis = axis

    def infer(self, x):
        return Spec(x.shape, dtype_of(self, x))


class LogSoftmax(_AlongAxis):
    """x - logsumexp(x) along one axis."""

    def compute(self, x):
        shifted = x - x.max(axis=self.axis, keepdims=True)
        return shifted - xp(x).log(xp(x).exp(shifted).sum(axis=self.axis, keepdims=True))

    def gradient(self, out_grad, node):
        if not is_grad_enabled():
            return LogSoftmaxGradient(self.axis)(out_grad, node.detach())
        return add(out_grad, negate(multiply(exp(node), summation(out_grad, self.axis, keepdims=True))))


class LogSoftmaxGradient(_AlongAxis):
    """The gradient of LogSoftmax, of its result y: in place, and in the memory order of y. A constant for the graph."""

    differentiable = False

    def compute(self, grad, y):
        out = xp(y).exp(y)
        out *= -grad.sum(axis=self.axis, keepdims=True)
        out += grad
        return out

    def infer(self, grad, y):
        return y


class Softmax(_AlongAxis):
    """e ** x / sum(e ** x) along one axis, the maximum taken out: more exact than the exponential of LogSoftmax."""

    def compute(self, x):
        powers = xp(x).exp(x - x.max(axis=self.axis, keepdims=True))
        return powers / powers.sum(axis=self.axis, keepdims=True)

    def gradient(self, out_grad, node):
        weighted = multiply(out_grad, node)
        return add(weighted, negate(multiply(node, summation(weighted, self.axis, keepdims=True))))


class ArgMax(TensorOp):
    """The index of the largest element, the first of equal ones; a constant for the graph."""

    differentiable = False

    def __init__(self, axis, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def compute(self, x):
        index = x.argmax(self.axis)
        return xp(x).expand_dims(index, self.axis) if self.keepdims else index

    def infer(self, x):
        shape = (*x.shape[: self.axis], *(1,) * self.keepdims, *x.shape[self.axis + 1 :])
        return Spec(shape, cpu().xp.dtype("int64"))


def summation(x, axes=None, keepdims=False):
    """The sum over `axes`."""
    x = tensor("summation", x)
    return Summation(check.axes("summation", axes, x.ndim), keepdims)(x)


def mean(x, axes=None, keepdims=False):
    """The arithmetic mean over `axes`."""
    x = tensor("mean", x)
    return Mean(check.axes("mean", axes, x.ndim), keepdims)(x)


def max(x, axes=None, keepdims=False):
    """The largest element over `axes`; equal ones share the gradient evenly."""
    return _extreme("max", x, axes, keepdims)


def min(x, axes=None, keepdims=False):
    """The smallest element over `axes`; equal ones share the gradient evenly."""
    return _extreme("min", x, axes, keepdims)


def logsumexp(x, axes=None, keepdims=False):
    """log(sum(exp(x))) over `axes`, without overflow."""
    x = tensor("logsumexp", x)
    axes = _some("logsumexp", x, check.axes("logsumexp", axes, x.ndim))
    return LogSumExp(axes, keepdims)(x)


def logsoftmax(x, axis=-1):
    """x - logsumexp(x) along `axis`, without overflow."""
    x = tensor("logsoftmax", x)
    (axis,) = _some("logsoftmax", x, (check.axis("logsoftmax", axis, x.ndim),))
    return LogSoftmax(axis)(x)


def softmax(x, axis=-1):
    """e ** x / sum(e ** x) along `axis`, without overflow."""
    x = tensor("softmax", x)
    (axis,) = _some("softmax", x, (check.axis("softmax", axis, x.ndim),))
    return Softmax(axis)(x)


def argmax(x, axis=None, keepdims=False):
    """The index of the largest element along `axis` (None: in the flattened tensor), the first of equal ones."""
    x = tensor("argmax", x)
    if axis is None:
        _some("argmax", x, tuple(range(x.ndim)))
        index = ArgMax(0)(reshape(x, (-1,)))
        return reshape(index, (1,) * x.ndim) if keepdims else index
    (axis,) = _some("argmax", x, (check.axis("argmax", axis, x.ndim),))
    return ArgMax(axis, keepdims)(x)


def _extreme(name, x, axes, keepdims):
    x = tensor(name, x)
    return Extreme(name, _some(name, x, check.axes(name, axes, x.ndim)), keepdims)(x)


def _some(op, x, axes):
    """Axes over which there is at least one element."""
    if any(x.shape[i] == 0 for i in axes):
        raise ValueError(f"{op}: axes must hold at least one element, but got axes {axes} of shape {x.shape}")
    return axes
