"""How windows slide in ONNX: strides, dilations and padding of a node, with `auto_pad` resolved."""

from __future__ import annotations

from collections.abc import Sequence

from needle.autograd import Tensor
from needle.kernels import Size, Window, same_padding
from needle.onnx.registry import Node
from needle.ops.operand import make_window

__all__ = ["kernel_of", "padding_pairs", "window_of"]

Pairs = tuple[tuple[int, int], ...]  # (before, after) of each axis


def padding_pairs(pads: Sequence[int]) -> Pairs:
    """ONNX's list of paddings, those before all axes and then those after, as a pair for each axis."""
    rank = len(pads) // 2
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def kernel_of(node: Node, weight: Tensor) -> Size:
    """The sizes of a kernel (…, …, *K), which the attribute `kernel_shape` may repeat."""
    kernel = weight.shape[2:]
    if tuple(node["kernel_shape"] or kernel) != kernel:
        raise ValueError(
            f"{node}: kernel_shape must be that of the weight {weight.shape}, but got {node['kernel_shape']}"
        )
    return kernel


def window_of(node: Node, size: Size, kernel: Size) -> Window:
    """The window of a node over an input of sizes `size`: its attributes, or ones and zeros if they are left out."""
    rank = len(kernel)
    stride = tuple(node["strides"] or (1,) * rank)
    dilation = tuple(node.get("dilations") or (1,) * rank)
    auto_pad = node.get("auto_pad") or "NOTSET"
    if auto_pad == "NOTSET":
        padding = padding_pairs(node["pads"] or (0, 0) * rank)
    elif auto_pad == "VALID":
        padding = ((0, 0),) * rank
    else:
        padding = same_padding(size, kernel, stride, dilation)
        if auto_pad == "SAME_LOWER":  # the odd element goes before
            padding = tuple((after, before) for before, after in padding)
    return make_window(node.op_type, rank, stride, padding, dilation)
