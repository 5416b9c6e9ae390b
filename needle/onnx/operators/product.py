"""Operators of linear algebra: matrix products, Einstein sums, determinants."""

from __future__ import annotations

from needle import ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import elementwise
from needle.onnx.registry import Node, operator

__all__: list[str] = []

elementwise({"Det": ops.det, "MatMul": ops.matmul})


@operator("Einsum")
def _einsum(node: Node, *operands: Tensor) -> Tensor:
    return ops.einsum(node["equation"], *operands)


@operator("Gemm")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · a b + beta · c, a (n, k) and b (k, m) transposed on request; c broadcasts to (n, m)."""
    product = ops.matmul(ops.transpose(a) if node["transA"] else a, ops.transpose(b) if node["transB"] else b)
    product = _scaled(product, node["alpha"])
    return product if c is None else ops.add(product, _scaled(c, node["beta"]))


def _scaled(x: Tensor, factor: float) -> Tensor:
    """factor · x, in the dtype of x; integers are scaled in float64."""
    if factor == 1:
        return x
    return ops.mul_scalar(x if x.dtype.kind == "f" else x.astype("float64"), factor).astype(x.dtype)
