"""Integers of 8 and 16 bits that stand for numbers, and products of them: number = scale · (integer - zero point).

Scales and zero points are numbers, or hold one number for each row of an axis or for each block along it. Rounded
results are constants. Products are computed in float64, which is exact for them.
"""

from __future__ import annotations

from typing import Any

from needle import check, ops
from needle.autograd import Tensor
from needle.backend import compute_dtype, cpu
from needle.kernels import at
from needle.onnx.operators.arguments import dtype_of
from needle.onnx.operators.convolution import conv
from needle.onnx.registry import Node, operator

__all__: list[str] = []

# ---- one tensor ------------------------------------------------------------------------------------------------------


@operator("QuantizeLinear", buffers=(1,))
def quantize(node: Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """x / scale, rounded half to even, plus the zero point, limited to what the integers hold."""
    if node.get("precision"):
        scale = scale.astype(dtype_of(node, "precision"))
    elif scale.dtype.kind != "f":
        scale = scale.astype("float64")
    quotient = x.astype(scale.dtype) / _along_axis(node, x, scale)
    if zero_point is not None:
        return _rounded(quotient, _along_axis(node, x, zero_point), zero_point.dtype)
    return _rounded(quotient, None, dtype_of(node, "output_dtype") if node.get("output_dtype") else "uint8")


@operator("DequantizeLinear")
def dequantize(node: Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """(x - zero point) · scale, in the dtype of the scale or in `output_dtype`."""
    dtype = dtype_of(node, "output_dtype") if node.get("output_dtype") else scale.dtype
    if zero_point is not None:
        wide = "int64" if x.dtype.itemsize == 4 else "int32"
        x = x.astype(wide) - _along_axis(node, x, zero_point)
    wide = compute_dtype(scale.dtype)
    return (x.astype(wide) * _along_axis(node, x, scale).astype(wide)).astype(dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8, the scale and the zero point, such that 0 and all elements are in range."""
    low, high = ops.minimum(ops.min(x), 0), ops.maximum(ops.max(x), 0)
    spread = high - low
    scale = ops.where(ops.equal(spread, 0), 1, spread) / 255
    zero_point = _rounded(-low / scale, None, "uint8")
    return _rounded(x / scale, zero_point, "uint8"), scale, zero_point


def _along_axis(node: Node, x: Tensor, values: Tensor) -> Tensor:
    """Scales or zero points, one for each row of an axis or each block along it, in a shape that broadcasts to x."""
    if values.size == 1:
        return ops.reshape(values, ())
    axis = check.axis(node.op_type, 1 if node.get("axis") is None else node["axis"], x.ndim)
    if values.ndim == 1 and not node.get("block_size"):
        return ops.reshape(values, (-1,) + (1,) * (x.ndim - 1 - axis))
    size, count = x.shape[axis], values.shape[axis]
    repeated = ops.repeat_interleave(values, node.get("block_size") or -(-size // count), axis)
    return ops.getitem(repeated, at(axis, slice(size)))


def _rounded(x: Tensor, zero_point: Tensor | None, dtype: Any) -> Tensor:
    """x rounded half to even plus a zero point, limited to what the integer dtype holds."""
    y = ops.round(x).astype(compute_dtype(x.dtype))
    if zero_point is not None:
        y = y + zero_point.astype(y.dtype)
    return ops.clip(y, *map(float, check.bounds(cpu().xp.dtype(dtype)))).astype(dtype)


# ---- products --------------------------------------------------------------------------------------------------------


@operator("MatMulInteger")
def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """The product of two matrices of integers, in int32."""
    return _int32(_shifted(a, _of_rows(a_zero)) @ _shifted(b, b_zero))


@operator("QLinearMatMul", buffers=(1, 4, 6))
def matmul_quantized(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor,
) -> Tensor:  # fmt: skip
    """The product of two quantized matrices, quantized."""
    product = _shifted(a, _of_rows(a_zero)) @ _shifted(b, b_zero)
    return _rounded(product * (_of_rows(a_scale) * b_scale / y_scale), y_zero, y_zero.dtype)


@operator("ConvInteger")
def conv_integer(
    node: Node, x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None
) -> Tensor:
    """The convolution of integers, in int32."""
    return _int32(_convolved(node, x, weight, x_zero, weight_zero))


@operator("QLinearConv", buffers=(1, 4, 6))
def conv_quantized(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The convolution of quantized tensors, quantized. The scale of the bias is that of the products."""
    y = _convolved(node, x, weight, x_zero, weight_zero, bias)
    if weight_scale.size > 1:
        weight_scale = ops.reshape(weight_scale, (-1,) + (1,) * (x.ndim - 2))
    return _rounded(y * (x_scale * weight_scale / y_scale), y_zero, y_zero.dtype)


def _convolved(
    node: Node, x: Tensor, weight: Tensor, x_zero: Tensor | None, weight_zero: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """The convolution of integers less their zero points, of which the weight may have one for each output channel."""
    if weight_zero is not None and weight_zero.size > 1:
        weight_zero = ops.reshape(weight_zero, (-1,) + (1,) * (x.ndim - 1))
    bias = None if bias is None else bias.astype("float64")
    return conv(node, _shifted(x, x_zero), _shifted(weight, weight_zero), bias)


def _shifted(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """Integers less their zero points as float64."""
    x = x.astype("float64")
    if zero_point is None:
        return x
    return x - (ops.reshape(zero_point, ()) if zero_point.size == 1 else zero_point)


def _of_rows(values: Any) -> Any:
    """Scales or zero points of the rows of a matrix, in a shape that broadcasts to it."""
    return ops.reshape(values, (-1, 1)) if values is not None and values.ndim == 1 and values.size > 1 else values


def _int32(x: Tensor) -> Tensor:
    """Whole numbers as int32, which wrap."""
    return x.astype("int64").astype("int32")
