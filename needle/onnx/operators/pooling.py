"""Pooling over windows, over whole images and over regions of interest, and the inverse of max pooling."""

from __future__ import annotations

import math
from dataclasses import replace

from needle import init, ops
from needle.autograd import Tensor
from needle.backend import compute_dtype
from needle.kernels import Size, Window
from needle.nn.functional.lp_pool import root_of_sum
from needle.onnx.operators.arguments import integers
from needle.onnx.operators.geometry import window_of
from needle.onnx.registry import Node, operator
from needle.ops.operand import check_fit, check_range
from needle.ops.pool import MaxUnpool, SumPool, largest
from needle.ops.statistics import vector_norm

__all__: list[str] = []


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The largest elements, and their indices into the flattened x; NaN is the largest, as in torch."""
    size = x.shape[2:]
    kernel, _, window = _windows(node, x)
    best, place = largest(x, kernel, window, node.has_output(1))
    if place is None:
        return best, None
    if node["storage_order"]:  # column-major in an image
        rest, place = place, init.zeros(*place.shape, device=x.device, dtype="int64")
        for axis, n in reversed(list(enumerate(size))):
            place = place + ops.remainder(rest, n) * math.prod(size[:axis])
            rest = ops.floor_divide(rest, n)
    image = ops.reshape(init.arange(math.prod(x.shape[:2]), device=x.device), (*x.shape[:2], *(1,) * len(size)))
    return best, place + image * math.prod(size)


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """The sums by the numbers of elements; what a last window of `ceil_mode` has beyond the padding never counts."""
    kernel, exact, window = _windows(node, x)
    total = SumPool(kernel, window)(x.astype(compute_dtype(x.dtype)))
    size = x.shape[2:]
    if node.get("count_include_pad"):
        size = exact.padded(size)
        sides = zip(window.padding, exact.padding, strict=True)
        window = replace(window, padding=tuple((0, rounded[1] - after) for rounded, (_, after) in sides))
    counts = SumPool(kernel, window)(init.ones(1, 1, *size, device=x.device, dtype=total.dtype))
    return (total / counts).astype(x.dtype)


@operator("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    kernel, _, window = _windows(node, x)
    p = node["p"]
    total = SumPool(kernel, window)(ops.power_scalar(ops.abs(x.astype(compute_dtype(x.dtype))), p))
    return root_of_sum(total, p).astype(x.dtype)


@operator("GlobalAveragePool")
def global_average_pool(_: Node, x: Tensor) -> Tensor:
    return ops.mean(x, _spatial_axes(x), keepdims=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Node, x: Tensor) -> Tensor:
    return ops.max(x, _spatial_axes(x), keepdims=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    return vector_norm(x.astype(compute_dtype(x.dtype)), node["p"], _spatial_axes(x)).astype(x.dtype)


@operator("MaxUnpool")
def max_unpool(node: Node, x: Tensor, indices: Tensor, output_shape: Tensor | None = None) -> Tensor:
    """Maxima at their indices into the smallest result of these windows; `output_shape` appends zeros to that."""
    kernel = tuple(node["kernel_shape"])
    window = window_of(node, x.shape[2:], kernel)
    shape = (*x.shape[:2], *window.input(x.shape[2:], kernel))
    check_range("MaxUnpool", "I", indices, 0, math.prod(shape) - 1)
    flat = MaxUnpool((math.prod(shape),))(ops.reshape(x, (-1,)), ops.reshape(indices, (-1,)))
    y = ops.reshape(flat, shape)
    if output_shape is None:
        return y
    return ops.pad(y, [(0, n - m) for n, m in zip(integers(output_shape), shape, strict=True)])


def _windows(node: Node, x: Tensor) -> tuple[Size, Window, Window]:
    """The kernel and the window of a pooling of x, without and with the padding that `ceil_mode` appends."""
    size, kernel = x.shape[2:], tuple(node["kernel_shape"])
    window = window_of(node, size, kernel)
    rounds_up = node.get("ceil_mode") and node["auto_pad"] == "NOTSET"  # the sizes of the others are fixed
    last = window.with_ceil_mode(size, kernel) if rounds_up else window
    check_fit(node.op_type, x.shape, kernel, last)
    return kernel, window, last


def _spatial_axes(x: Tensor) -> Size:
    return tuple(range(2, x.ndim))
