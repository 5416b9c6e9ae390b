"""A linear layer as one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from needle import kernels
from needle.autograd import Tensor, TensorOp
from needle.graph import Spec
from needle.ops.base import Array, Gradients
from needle.ops.elementwise import RELU_GRAD
from needle.ops.linalg import MatMul, transposed
from needle.ops.operand import constant
from needle.ops.shape import sum_like

__all__: list[str] = []


class Linear(TensorOp):
    """x (…, n, I), w (I, O) and an optional bias (O,) or (1, O) -> x @ w + bias (…, n, O)."""

    saved_inputs = (0, 1)
    rectified = False

    def compute(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        return kernels.linear(x, w, bias, self.rectified)

    def infer(self, x: Any, w: Any, *bias: Any) -> Spec:
        return Spec((*x.shape[:-1], w.shape[1]), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, w, *bias = node.inputs
        return (
            MatMul()(out_grad, transposed(w)) if x.requires_grad else None,
            sum_like(MatMul()(transposed(x), out_grad), w) if w.requires_grad else None,
            *(sum_like(out_grad, b) if b.requires_grad else None for b in bias),
        )

    def compute_gradient(
        self, out_grad: Array, y: Array, x: Array, w: Array, *bias: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        """Compute the needed gradients; on a GPU those in w and bias come from one pass over out_grad."""
        wanted = (*needed, False)[:3]
        *grads, bias_grad = kernels.linear_backward(out_grad, x, w, wanted, y if self.rectified else None)
        return (*grads, *(bias_grad if bias_grad is None else bias_grad.reshape(b.shape) for b in bias))


class RectifiedLinear(Linear):
    """max(y, 0) of the y of Linear, in its memory: the graph keeps one array less."""

    saves_output = True
    rectified = True

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return super().gradient(RELU_GRAD(out_grad, constant(node)), node)

    def compute_gradient(
        self, out_grad: Array, y: Array, x: Array, w: Array, *bias: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        return super().compute_gradient(out_grad, y, x, w, *bias, needed=needed)


LINEAR, RECTIFIED_LINEAR = Linear(), RectifiedLinear()


def fit(w: Tensor, bias: Tensor | None, features: int) -> bool:
    """Whether these are operands of `affine` for x (…, n, features)."""
    shape = w.spec.shape
    return (
        len(shape) == 2
        and shape[0] == features
        and (bias is None or bias.spec.shape == shape[1:] or bias.spec.shape == (1, shape[1]))
    )


def affine(x: Tensor, w: Tensor, bias: Tensor | None, rectified: bool = False) -> Tensor:
    """x (…, n, I) @ w (I, O), plus bias (O,) or (1, O) if there is one; with `rectified`, relu of that."""
    op = RECTIFIED_LINEAR if rectified else LINEAR
    return op(x, w) if bias is None else op(x, w, bias)
