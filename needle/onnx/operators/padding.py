"""Elements added around a tensor and cut off from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from needle import check, ops
from needle.autograd import Tensor
from needle.backend import HostArray
from needle.onnx.operators.arguments import integers
from needle.onnx.operators.geometry import padding_pairs
from needle.onnx.operators.selection import select
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Pad", since=11, buffers=(2,))
def pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    chosen = check.axes(str(node), None if axes is None else integers(axes), x.ndim, "axes")
    pairs = dict(zip(chosen, padding_pairs(integers(pads)), strict=True))
    return _padded(node, x, [pairs.get(axis, (0, 0)) for axis in range(x.ndim)], 0 if value is None else value.item())


@operator("Pad", since=2)
def pad_by_attributes(node: Node, x: Tensor) -> Tensor:
    return _padded(node, x, padding_pairs(node["pads"]), node["value"])


@operator("Pad", since=1)
def pad_by_paddings(node: Node, x: Tensor) -> Tensor:
    return _padded(node, x, padding_pairs(node["paddings"]), node["value"])


@operator("CenterCropPad")
def center_crop_pad(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """The odd element is cut off, and added, at the end."""
    chosen = check.axes(str(node), node["axes"] or None, x.ndim, "axes")
    more = dict(zip(chosen, integers(shape), strict=True))
    missing = [more.get(axis, n) - n for axis, n in enumerate(x.shape)]
    before = [n // 2 if n > 0 else -(-n // 2) for n in missing]
    return ops.pad(x, [(first, n - first) for first, n in zip(before, missing, strict=True)])


def _padded(node: Node, x: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> Tensor:
    """x with `pairs` of elements added, after what negative numbers say was cut off."""
    if node["mode"] == "constant":
        return ops.pad(x, pairs, value)
    x = ops.pad(x, [(min(before, 0), min(after, 0)) for before, after in pairs])
    for axis, (before, after) in enumerate(pairs):
        if before > 0 or after > 0:
            if not x.shape[axis]:
                raise ValueError(f"{node}: mode {node['mode']!r} must have elements to copy, but got shape {x.shape}")
            index = np.arange(-max(before, 0), x.shape[axis] + max(after, 0))
            x = select(x, axis, _sources(index, x.shape[axis], node["mode"]))
    return x


def _sources(index: HostArray, n: int, mode: str) -> HostArray:
    """Which of n elements stand at positions from below 0 to beyond n."""
    if mode == "edge":
        return index.clip(0, n - 1)
    if mode == "wrap":
        return index % n
    period = max(2 * (n - 1), 1)
    return (n - 1) - abs((n - 1) - index % period)
