"""Operators that compare, choose, and combine truth values and bits."""

from __future__ import annotations

from needle import check, ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import elementwise, pairwise
from needle.onnx.registry import Node, operator

__all__: list[str] = []

pairwise({
    "And": ops.logical_and, "Or": ops.logical_or, "Xor": ops.logical_xor,
    "Equal": ops.equal, "Greater": ops.greater, "Less": ops.less,
})  # fmt: skip
elementwise({
    "Not": ops.logical_not, "GreaterOrEqual": ops.greater_equal, "LessOrEqual": ops.less_equal,
    "IsNaN": ops.isnan, "Where": ops.where,
    "BitwiseAnd": ops.bitwise_and, "BitwiseNot": ops.bitwise_not, "BitwiseOr": ops.bitwise_or,
    "BitwiseXor": ops.bitwise_xor,
})  # fmt: skip


@operator("IsInf")
def isinf(node: Node, x: Tensor) -> Tensor:
    """Test for the infinities of the signs that the attributes ask for."""
    infinite = ops.isinf(x)
    if not node["detect_negative"]:
        infinite = ops.logical_and(infinite, ops.greater(x, 0))
    return infinite if node["detect_positive"] else ops.logical_and(infinite, ops.less(x, 0))


@operator("BitShift")
def bit_shift(node: Node, a: Tensor, b: Tensor) -> Tensor:
    direction = check.one_of(str(node), "direction", node["direction"], ("LEFT", "RIGHT"))
    return (ops.bitwise_left_shift if direction == "LEFT" else ops.bitwise_right_shift)(a, b)
