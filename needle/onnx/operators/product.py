"""Operators of linear algebra: matrix products, Einstein sums, determinants."""

from __future__ import annotations

from needle import check, ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import elementwise
from needle.onnx.registry import Node, operator

__all__: list[str] = []

elementwise({"Det": ops.det, "MatMul": ops.matmul})


@operator("Einsum")
def einsum(node: Node, *operands: Tensor) -> Tensor:
    return ops.einsum(node["equation"], *operands).astype(operands[0].dtype)


@operator("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · a b + beta · c, a (n, k) and b (k, m) transposed on request; c broadcasts to (n, m).

    With beta 0, c is not read, as in BLAS. Integers with another factor than 1 are computed in float64.
    """
    alpha, beta, dtype = node["alpha"], node["beta"], a.dtype
    check.same(str(node), "rank", (a.ndim, b.ndim), (2, 2), ("A and B", "matrices"))
    if dtype.kind != "f" and (alpha, beta) != (1, 1):
        a, b, c = a.astype("float64"), b.astype("float64"), None if c is None else c.astype("float64")
    y = ops.matmul(ops.transpose(a) if node["transA"] else a, ops.transpose(b) if node["transB"] else b)
    y = y if alpha == 1 else ops.mul_scalar(y, alpha)
    if c is not None and beta:
        y = ops.add(y, ops.broadcast_to(c if beta == 1 else ops.mul_scalar(c, beta), y.shape))
    return y.astype(dtype)
