"""Operators that make tensors: constants, ranges, unit matrices, and shapes and sizes as tensors."""

from __future__ import annotations

from typing import Any

import onnx

from needle import check, ops
from needle.autograd import Tensor
from needle.init import arange, eye, full
from needle.onnx.operators.arguments import dtype_of, integers
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Constant")
def constant(node: Node) -> Tensor:
    if node.get("value") is not None:
        return _tensor(onnx.numpy_helper.to_array(node["value"]))
    for name, dtype in {"value_float": "float32", "value_int": "int64"}.items():
        for key in (name, f"{name}s"):
            if node.get(key) is not None:  # which old opsets do not have
                return _tensor(node[key], dtype)
    raise TypeError(f"{node}: value must be a tensor of numbers, but got a sparse one or strings")


@operator("ConstantOfShape")
def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = _tensor([0.0], "float32") if node["value"] is None else _tensor(onnx.numpy_helper.to_array(node["value"]))
    return full(integers(shape), value.item(), device=shape.device, dtype=value.dtype)


@operator("Range", buffers=(0, 1, 2))
def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start + i · delta below the limit; float16 is computed in float32, as the later schema says."""
    count = arange(start.item(), limit.item(), delta.item(), dtype="float64").size
    wide = "float32" if start.dtype == "float16" else start.dtype
    places = arange(count, device=start.device, dtype=wide)
    return ops.add(ops.multiply(places, delta.astype(wide)), start.astype(wide)).astype(start.dtype)


@operator("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    """Ones on diagonal k, in the shape of x: a unit matrix whose rows, or columns, begin later."""
    check.same(str(node), "rank", x.ndim, 2, ("the input", "a matrix"))
    rows, columns = x.shape
    k, dtype = node["k"], x.dtype if node["dtype"] is None else dtype_of(node, "dtype")
    top, left = max(k, 0), max(-k, 0)
    return eye(rows + top, columns + left, device=x.device, dtype=dtype)[top:, left:]


@operator("Shape")
def shape(node: Node, x: Tensor) -> Tensor:
    cut = slice(node["start"], node["end"]) if node.opset >= 15 else slice(None)
    return _tensor(x.shape[cut], "int64", x.device)


@operator("Size")
def size(node: Node, x: Tensor) -> Tensor:
    return _tensor(x.size, "int64", x.device)


def _tensor(value: Any, dtype: str | None = None, device: Any = None) -> Tensor:
    return Tensor(value, dtype=dtype, device=device, requires_grad=False)
