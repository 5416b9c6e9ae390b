"""Convolutions over any number of axes, and their transposes."""

from __future__ import annotations

import math

from needle import init, ops
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, compute_dtype
from needle.kernels import Size
from needle.nn.functional.grid import sampled_at
from needle.onnx.operators.arguments import integers
from needle.onnx.operators.geometry import kernel_of, padding_pairs, window_of
from needle.onnx.registry import Node, operator
from needle.ops.conv import Fold, convolve, convolve_transpose
from needle.ops.operand import check_fit, make_window

__all__: list[str] = []


@operator("Conv")
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    window = window_of(node, x.shape[2:], kernel_of(node, weight))
    options = window.stride, window.padding, window.dilation, node["group"]
    return convolve("Conv", x.ndim - 2, x, weight, bias, *options)


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The padding cuts elements off; where it is negative, zeros follow at the end."""
    rank, kernel = x.ndim - 2, kernel_of(node, weight)
    ones = (1,) * rank
    window = make_window("ConvTranspose", rank, tuple(node["strides"] or ones), 0, tuple(node["dilations"] or ones))
    more = node["output_padding"] or (0,) * rank
    full = tuple(n + m for n, m in zip(window.input(x.shape[2:], kernel), more, strict=True))
    output = node["output_shape"]
    if node["auto_pad"].startswith("SAME") and not output:
        output = [n * s for n, s in zip(x.shape[2:], window.stride, strict=True)]
    pairs = padding_pairs((node["auto_pad"] == "NOTSET" and node["pads"]) or (0, 0) * rank)
    if output:
        pairs = tuple(_split(n - m, node["auto_pad"]) for n, m in zip(full, output[-rank:], strict=True))
    ends = [after - m for (_, after), m in zip(pairs, more, strict=True)]  # what to cut off without output padding
    cut = tuple((before, max(end, 0)) for (before, _), end in zip(pairs, ends, strict=True))
    y = convolve_transpose(
        "ConvTranspose", rank, x, weight, None, window.stride, cut, 0, node["group"], window.dilation
    )
    y = ops.pad(y, ((0, 0), (0, 0), *((0, max(-end, 0)) for end in ends)))
    return y if bias is None else ops.add(y, ops.reshape(bias, (1, y.shape[1], *ones)))


def _split(total: int, auto_pad: str) -> tuple[int, int]:
    """What to cut off before and after; the odd element at the start, but for SAME_UPPER at the end."""
    if total < 0:
        return 0, total
    before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    return before, total - before


@operator("CausalConvWithState")
def causal_conv_with_state(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    n, channels, length = x.shape
    if past is None:
        past = init.zeros(n, channels, weight.shape[2] - 1, device=x.device, dtype=x.dtype)
    line = ops.concatenate([past, x], 2)
    y = convolve("CausalConvWithState", 1, line, weight, bias, 1, 0, 1, channels)
    if node["activation"] != "none":
        y = ops.multiply(y, ops.sigmoid(y))
    return y, ops.getitem(line, (slice(None), slice(None), slice(length, None)))


@operator("Col2Im")
def col2im(node: Node, x: Tensor, image_shape: Tensor, block_shape: Tensor) -> Tensor:
    size, kernel = (tuple(integers(value)) for value in (image_shape, block_shape))
    window = window_of(node, size, kernel)
    channels = x.shape[1] // math.prod(kernel)
    check_fit("Col2Im", (1, 1, *size), kernel, window)
    shape = (x.shape[0], channels * math.prod(kernel), math.prod(window.output(size, kernel)))
    if x.shape != shape:
        raise ValueError(f"{node}: input must be (N, C·{math.prod(kernel)}, {shape[2]}), but got {x.shape}")
    return Fold(window, kernel, size)(x)


@operator("DeformConv")
def deform_conv(
    node: Node, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Each tap of the kernel reads between elements, at its place plus an offset; beyond x there are zeros."""
    (n, c), size, kernel = x.shape[:2], x.shape[2:], kernel_of(node, weight)
    rank, taps, groups, offset_groups = len(size), math.prod(kernel), node["group"], node["offset_group"]
    window = window_of(node, size, kernel)
    check_fit("DeformConv", x.shape, kernel, window)
    output = window.output(size, kernel)
    points = math.prod(output)
    dtype = compute_dtype(x.dtype)
    # (N, OG, K, r, P): how far each tap of each offset group moves along each axis
    moves = ops.reshape(offset, (n * offset_groups, taps, rank, points)).astype(dtype)
    places = []
    sides = zip(window.dilation, window.stride, window.padding, strict=True)
    for axis, (step, stride, (before, _)) in enumerate(sides):
        tap = _coordinates(axis, kernel, x.device, dtype) * step
        start = _coordinates(axis, output, x.device, dtype) * stride - before
        place = moves[:, :, axis] + (ops.reshape(tap, (taps, 1)) + start)
        places.append(ops.reshape(place, (n * offset_groups, taps * points)))
    image = ops.reshape(x.astype(dtype), (n * offset_groups, c // offset_groups, *size))
    columns = ops.reshape(sampled_at(image, places), (n, offset_groups, c // offset_groups, taps, points))
    if mask is not None:
        columns = columns * ops.reshape(mask.astype(dtype), (n, offset_groups, 1, taps, points))
    columns = ops.reshape(columns, (n, groups, c // groups * taps, points))
    matrix = ops.reshape(weight.astype(dtype), (groups, weight.shape[0] // groups, -1))
    y = ops.reshape(ops.matmul(matrix, columns), (n, weight.shape[0], *output))
    if bias is not None:
        y = y + ops.reshape(bias.astype(dtype), (1, y.shape[1], *(1,) * rank))
    return y.astype(x.dtype)


def _coordinates(axis: int, size: Size, device: Device, dtype: DTypeLike) -> Tensor:
    """The coordinate along one axis of each element of a grid of sizes *S, row-major: (S,)."""
    line = init.arange(size[axis], device=device, dtype=dtype)
    column = ops.reshape(line, (1,) * axis + (-1,) + (1,) * (len(size) - 1 - axis))
    return ops.reshape(ops.broadcast_to(column, size), (-1,))
