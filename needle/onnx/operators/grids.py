"""Sampling at the points of grids, and channels exchanged for positions."""

from __future__ import annotations

import numpy as np

from needle import check, ops
from needle.autograd import Tensor
from needle.nn.functional import pixel_shuffle, pixel_unshuffle
from needle.nn.functional.grid import affine_grid as affine_points
from needle.nn.functional.grid import sampled
from needle.onnx.operators.arguments import integers
from needle.onnx.registry import Node, operator

__all__: list[str] = []

MODES = {"linear": "bilinear", "cubic": "bicubic"}  # from opset 20 on, for any number of axes


@operator("GridSample")
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """Integers are cut off towards zero at the end."""
    mode = MODES.get(node["mode"], node["mode"])
    options = mode, node["padding_mode"], bool(node["align_corners"])
    if x.dtype.kind == "f" or mode == "nearest":
        return sampled(x, grid, *options)
    y = sampled(x.astype("float64"), grid, *options)
    if x.dtype.kind in "iu":
        y = ops.clip(y, np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype)


@operator("AffineGrid")
def affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    return affine_points(theta, integers(size), bool(node["align_corners"]))


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    b = check.integer(str(node), "blocksize", node["blocksize"], least=1)
    if node.get("mode") == "CRD":
        return pixel_shuffle(x, b)
    n, c, h, w = x.shape
    blocks = ops.permute(ops.reshape(x, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    return ops.reshape(blocks, (n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    b = check.integer(str(node), "blocksize", node["blocksize"], least=1)
    if node.get("mode") == "CRD":
        return pixel_unshuffle(x, b)
    n, c, h, w = x.shape
    blocks = ops.permute(ops.reshape(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return ops.reshape(blocks, (n, c * b * b, h // b, w // b))
