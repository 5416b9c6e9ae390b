"""The cross-entropy of class indices as one op: in a small classifier's step, graph nodes dominate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from needle import kernels
from needle.autograd import Tensor, TensorOp
from needle.backend import compute_dtype, xp
from needle.graph import Spec
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, DivScalar
from needle.ops.base import Array, Gradients
from needle.ops.index import OneHot
from needle.ops.reduce import Softmax
from needle.ops.shape import Permute

__all__ = ["CROSS_ENTROPY", "CrossEntropy", "class_axis", "class_index"]


class CrossEntropy(TensorOp):
    """The mean of -log softmax(x)[class]: x (N, C, *S) or (C,), classes of int64 (N, *S) or () -> ().

    For 64 rows of 10 classes, forward and backward take half the time of LogSoftmax, GetItem, Negate and Mean.
    """

    def compute(self, x: Array, classes: Array) -> Array:
        axis = class_axis(x)
        wide = x.astype(compute_dtype(x.dtype), copy=False)
        shifted = wide - wide.max(axis=axis, keepdims=True)
        log_total = xp(x).log(kernels.sums(xp(x).exp(shifted), (axis,))).squeeze(axis)
        losses = log_total - shifted[class_index(classes, axis)]
        return kernels.means(losses, tuple(range(losses.ndim))).reshape(()).astype(x.dtype, copy=False)

    def infer(self, x: Any, classes: Any) -> Spec:
        return Spec((), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, classes = node.inputs
        axis = class_axis(x)
        ones = OneHot(x.shape[axis], x.dtype)(classes)  # (N, *S, C)
        ones = Permute((*range(axis), classes.ndim, *range(axis, classes.ndim)))(ones)  # (N, C, *S)
        difference = ADD(Softmax(axis)(x), NEGATE(ones))
        return MULTIPLY(difference, DivScalar(math.prod(classes.shape))(out_grad)), None

    def compute_gradient(
        self, out_grad: Array, y: Array, x: Array, classes: Array, *, needed: Sequence[bool]
    ) -> tuple[Array, None]:
        """The gradient in place, in the memory order of x; of float16 in float32."""
        axis = class_axis(x)
        x = x.astype(compute_dtype(x.dtype), copy=False)
        x_grad = x - x.max(axis=axis, keepdims=True)
        xp(x).exp(x_grad, x_grad)
        x_grad /= kernels.sums(x_grad, (axis,))
        x_grad[class_index(classes, axis)] -= 1
        x_grad *= out_grad.astype(x.dtype, copy=False) / classes.size
        return x_grad, None


CROSS_ENTROPY = CrossEntropy()


def class_axis(x: Any) -> int:
    """The axis of the classes in (N, C, *S) or (C,)."""
    return 1 if x.ndim > 1 else x.ndim - 1


def class_index(classes: Array, axis: int) -> tuple[Array, ...]:
    """The index that selects, from (N, C, *S), the element of class `classes` (N, *S) at every position."""
    grid = [xp(classes).arange(n) for n in classes.shape]
    grid = [line.reshape((-1,) + (1,) * (len(grid) - i - 1)) for i, line in enumerate(grid)]
    return (*grid[:axis], classes, *grid[axis:])


