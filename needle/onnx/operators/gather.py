"""Operators that read elements by their indices."""

from __future__ import annotations

from needle.autograd import Tensor
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Gather")
def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    return x[(slice(None),) * (node["axis"] % x.ndim) + (indices,)]
