"""Matrix products and determinants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from needle import kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import compute_dtype, xp
from needle.graph import Spec
from needle.ops.arithmetic import MULTIPLY
from needle.ops.base import Array, Elementwise, Gradients, result_dtype
from needle.ops.index import INDEX_ARRAY, GetItem, PutItem
from needle.ops.operand import broadcast_shape, floating, pair
from needle.ops.shape import Permute, Reshape, sum_like, swapped_axes

__all__ = ["MatMul", "det", "matmul"]


class MatMul(TensorOp):
    """(*B, n, k), (*B, k, m) -> (*B, n, m); the axes *B broadcast."""

    def compute(self, a: Array, b: Array) -> Array:
        if a.ndim == b.ndim == 2:
            return kernels.matmul_like(a, a, b)  # keeps batch-last memory order
        return kernels.matmul(a, b)

    def infer(self, a: Any, b: Any) -> Spec:
        batch = broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
        return Spec((*batch, a.shape[-2], b.shape[-1]), result_dtype(self, a, b))

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        return (
            sum_like(self(out_grad, transposed(b)), a) if a.requires_grad else None,
            sum_like(self(transposed(a), out_grad), b) if b.requires_grad else None,
        )

    def compute_gradient(
        self, out_grad: Array, y: Array, a: Array, b: Array, *, needed: Sequence[bool]
    ) -> tuple[Array | None, Array | None]:
        """Compute each gradient in the memory order of its operand: an optimizer adds others ten times as slowly."""
        return (
            _matmul_like(a, out_grad, b.swapaxes(-1, -2)) if needed[0] else None,
            _matmul_like(b, a.swapaxes(-1, -2), out_grad) if needed[1] else None,
        )


def _matmul_like(x: Array, a: Array, b: Array) -> Array:
    """a @ b, (*B, n, k) @ (*B, k, m), summed to the shape of x; a matrix in the memory order of x."""
    if x.ndim == a.ndim == b.ndim == 2:
        return kernels.matmul_like(x, a, b)
    return kernels.summed_to(x.shape, kernels.matmul(a, b))


def transposed(x: Tensor) -> Tensor:
    """(*B, n, m) -> (*B, m, n), a view."""
    return Permute(swapped_axes(x.ndim, x.ndim - 2, x.ndim - 1))(x)


class Det(TensorOp):
    """(*B, n, n) -> (*B): determinants. The derivative is the matrix of cofactors (Jacobi's formula)."""

    def compute(self, x: Array) -> Array:
        return xp(x).linalg.det(x.astype(compute_dtype(x.dtype), copy=False)).astype(x.dtype, copy=False)

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape[:-2], x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return MULTIPLY(Reshape((*node.shape, 1, 1))(out_grad), Cofactors()(node.inputs[0]))


class Cofactors(Elementwise):
    """The signed minors of matrices, det(x) · x⁻ᵀ, by singular values: det(u vᵀ) · u · diag(products of others) · vᵀ.

    So they are right for singular matrices, too. They are determinants of minors, so their derivatives are cofactors of
    minors, and right to any order; each order costs n² times the one before.
    """

    is_elementwise = False

    def compute(self, x: Array) -> Array:
        namespace = xp(x)
        u, s, vt = namespace.linalg.svd(x.astype(compute_dtype(x.dtype), copy=False))
        others = namespace.where(namespace.eye(x.shape[-1], dtype="bool"), 1, s[..., None, :]).prod(-1)
        signs = namespace.linalg.det(u) * namespace.linalg.det(vt)
        y = namespace.matmul(u * (others * signs[..., None])[..., None, :], vt)
        return y.astype(x.dtype, copy=False)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        namespace, n = x.device.xp, x.shape[-1]
        places, rest = namespace.arange(n), namespace.arange(max(n - 1, 0))
        others = rest + (rest >= places[:, None])  # (n, n - 1): the places but one
        rows, columns = (Tensor.make_const(index) for index in (others[:, None, :, None], others[None, :, None, :]))
        signs = Tensor.make_const((1 - 2 * ((places + places[:, None]) % 2)).astype(x.dtype))
        index = Ellipsis, INDEX_ARRAY, INDEX_ARRAY
        minors = GetItem(index)(x, rows, columns)  # (*B, n, n, n - 1, n - 1)
        grads = MULTIPLY(Reshape((*x.shape, 1, 1))(MULTIPLY(out_grad, signs)), Cofactors()(minors))
        return PutItem(index, x.shape)(grads, rows, columns)


def det(x: TensorLike) -> Tensor:
    """The determinants of square matrices: `(*B, n, n) -> (*B)`, by LU decomposition; 1 for n = 0.

    Derivatives of all orders are right for singular matrices, too. The second one decomposes n² matrices. Dtypes as in
    `exp`; float16 is computed in float32. Raises `ValueError` unless the last two axes have the same size.
    """
    x = floating("det", x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"det: x must hold square matrices, but got shape {x.shape}")
    return Det()(x)


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """Matrix products: a `(*A, n, k)`, b `(*B, k, m)` -> `(*C, n, m)`; the leading axes broadcast.

    A vector a stands for a row, a vector b for a column, whose axis the result lacks: `(k,), (k,) -> ()`. Dtypes
    as in `add`. float16 accumulates in float32; integers wrap around; bools combine by "and" and "or".

    Raises `ValueError` for operands without axes, inner sizes that differ or leading axes that do not broadcast;
    `TypeError` as in `add`.
    """
    a, b = pair("matmul", a, b, broadcast=False)
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: operands must have at least 1 axis, but got shapes {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: the inner sizes must agree, but got shapes {a.shape} and {b.shape}")
    broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    if a.ndim > 1 and b.ndim > 1:
        return MatMul()(a, b)
    left = a if a.ndim > 1 else Reshape((1, a.size))(a)
    right = b if b.ndim > 1 else Reshape((b.size, 1))(b)
    product = MatMul()(left, right)
    rows, columns = left.shape[-2:-1] * (a.ndim > 1), right.shape[-1:] * (b.ndim > 1)
    return Reshape(product.shape[:-2] + rows + columns)(product)
