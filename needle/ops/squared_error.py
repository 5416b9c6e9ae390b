"""The squared error of two tensors as one op, for devices on which each launch counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from needle import kernels
from needle.autograd import TensorTuple, TensorTupleOp
from needle.graph import Spec
from needle.ops.arithmetic import ADD, MULTIPLY, NEGATE, MulScalar
from needle.ops.base import Array, Gradients
from needle.ops.tuples import pick

__all__ = ["SquaredErrorWithGradient"]


class SquaredErrorWithGradient(TensorTupleOp):
    """The sum of (x - target)², or the mean if `mean`: x, target of one shape and dtype -> (), and x - target.

    Only the value has derivatives.
    """

    saves_output = True

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def compute(self, x: Array, target: Array) -> tuple[Array, Array]:
        return kernels.squared_error(x, target, self.mean)

    def infer(self, x: Any, target: Any) -> tuple[Spec, Spec]:
        return Spec((), x.dtype), Spec(x.shape, x.dtype)

    def factor(self, x: Any) -> float:
        """What the difference is multiplied by in the gradient in x."""
        return 2 / math.prod(x.shape) if self.mean else 2.0

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        x, target = node.inputs
        difference = ADD(x, NEGATE(target))
        grad = MULTIPLY(MulScalar(self.factor(x))(difference), pick(out_grad, 0))
        return grad, NEGATE(grad)

    def compute_gradient(
        self, out_grad: tuple[Array, ...], output: tuple[Array, ...], *inputs: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        factor = self.factor(inputs[0])
        return tuple(
            kernels.scaled_gradient(output[1], out_grad[0], None, by) if need else None
            for by, need in zip((factor, -factor), needed, strict=True)
        )
