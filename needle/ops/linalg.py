"""Matrix products."""

from __future__ import annotations

from needle.autograd import TensorOp
from needle.ops.operand import broadcast_shape, pair
from needle.ops.shape import reshape, sum_to, transpose


class MatMul(TensorOp):
    """(*B, n, k), (*B, k, m) -> (*B, n, m); the axes *B broadcast."""

    def compute(self, a, b):
        if a.ndim == b.ndim == 2 and a.strides[0] < a.strides[1]:
            return (b.T @ a.T).T  # a batch-innermost activation makes one again
        return a @ b

    def gradient(self, out_grad, node):
        a, b = node.inputs
        return (
            sum_to(matmul(out_grad, transpose(b)), a.shape) if a.requires_grad else None,
            sum_to(matmul(transpose(a), out_grad), b.shape) if b.requires_grad else None,
        )


def matmul(a, b):
    """(*B, n, k), (*B, k, m) -> (*B, n, m); the axes *B broadcast, and a vector stands for a row or a column."""
    a, b = pair("matmul", a, b, broadcast=False)
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: operands must have at least 1 axis, but got shapes {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: the inner sizes must agree, but got shapes {a.shape} and {b.shape}")
    broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    if a.ndim == 1 or b.ndim == 1:
        left = reshape(a, (1, -1)) if a.ndim == 1 else a
        right = reshape(b, (-1, 1)) if b.ndim == 1 else b
        product = MatMul()(left, right)
        rows, columns = left.shape[-2:-1] * (a.ndim > 1), right.shape[-1:] * (b.ndim > 1)
        return reshape(product, product.shape[:-2] + rows + columns)
    return MatMul()(a, b)
