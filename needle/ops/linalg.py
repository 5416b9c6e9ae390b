"""Matrix products."""

from __future__ import annotations

import math

from needle import kernels
from needle.autograd import TensorOp
from needle.lazy import Spec
from needle.ops.arithmetic import cast
from needle.ops.base import dtype_of
from needle.ops.operand import broadcast_shape, pair
from needle.ops.shape import permute, reshape, sum_to, transpose


class MatMul(TensorOp):
    """(*B, n, k), (*B, k, m) -> (*B, n, m); the axes *B broadcast."""

    def compute(self, a, b):
        if a.ndim == b.ndim == 2 and a.strides[0] < a.strides[1]:
            return kernels.matmul(b.T, a.T).T  # a batch-innermost activation makes one again
        return kernels.matmul(a, b)

    def infer(self, a, b):
        batch = broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
        return Spec((*batch, a.shape[-2], b.shape[-1]), dtype_of(self, a, b))

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


def matmul_along(x, matrix, axis):
    """A product along one axis with a constant raw matrix, x first: (N, …, S, …), (S, P) -> (N, …, P, …).

    In batch-innermost order the axes after S, and N, are one axis of columns. float16 accumulates in float32.
    """
    wide = cast(x, "float32") if x.dtype == "float16" else x
    inner = permute(wide, (*range(1, x.ndim), 0))
    before, after = inner.shape[: axis - 1], inner.shape[axis:]
    matrix = x.make_const(matrix.astype(wide.dtype))
    if math.prod(after) == 1:
        product = matmul(reshape(inner, (math.prod(before), -1)), matrix)
    else:
        product = matmul(transpose(matrix), reshape(inner, (math.prod(before), matrix.shape[0], math.prod(after))))
    product = reshape(product, (*before, matrix.shape[1], *after))
    return cast(permute(product, (x.ndim - 1, *range(x.ndim - 1))), x.dtype)
