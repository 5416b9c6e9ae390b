"""Operators that change the type of elements."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor
from needle.backend import cpu
from needle.onnx.operators.arguments import dtype_of
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    """x in the dtype `to`; but in a module that `float` or `double` has cast, floats are those of the module."""
    dtype = dtype_of(node, "to")
    return x.astype(node.cast_dtype or dtype if dtype.startswith("float") else dtype)


@operator("CastLike")
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return x.astype(like.dtype)


@operator("BitCast")
def bit_cast(node: Node, x: Tensor) -> Tensor:
    dtype = cpu().xp.dtype(dtype_of(node, "to"))
    check.same(str(node), "bytes of an element", x.dtype.itemsize, dtype.itemsize, ("input", "to"))
    return Tensor.make_const(x.array.view(dtype))
