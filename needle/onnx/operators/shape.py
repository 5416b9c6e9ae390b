"""Operators that rearrange elements: shapes, transposes, slices, parts, copies side by side, triangles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check, ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import axis_of, elementwise, integers
from needle.onnx.registry import Node, operator
from needle.ops.operand import broadcast_shape

__all__: list[str] = []

elementwise({"Identity": lambda x: x})


@operator("Reshape")
def reshape_by_attribute(node: Node, x: Tensor) -> Tensor:
    return _reshaped(x, node["shape"])


@operator("Reshape", since=5)
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = integers(shape)
    return ops.reshape(x, sizes) if node.opset >= 14 and node["allowzero"] else _reshaped(x, sizes)


def _reshaped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """x in a shape of which 0 stands for the size that x has there."""
    return ops.reshape(x, [n or (x.shape[i : i + 1] or (0,))[0] for i, n in enumerate(sizes)])


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = x.ndim if node["axis"] == x.ndim else axis_of(node, x.ndim)
    return ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Squeeze")
def squeeze_by_attribute(node: Node, x: Tensor) -> Tensor:
    return _squeezed(node, x, node["axes"])


@operator("Squeeze", since=13)
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return _squeezed(node, x, None if axes is None else integers(axes))


def _squeezed(node: Node, x: Tensor, axes: Sequence[int] | None) -> Tensor:
    if axes is None:
        return ops.squeeze(x)
    if any(x.shape[axis] != 1 for axis in check.axes(str(node), axes, x.ndim)):
        raise ValueError(f"{node}: axes must have size 1, but got axes {axes} of shape {x.shape}")
    return ops.squeeze(x, axes)


@operator("Unsqueeze")
def unsqueeze_by_attribute(node: Node, x: Tensor) -> Tensor:
    return _unsqueezed(node, x, node["axes"])


@operator("Unsqueeze", since=13)
def unsqueeze(node: Node, x: Tensor, axes: Tensor) -> Tensor:
    return _unsqueezed(node, x, integers(axes))


def _unsqueezed(node: Node, x: Tensor, axes: Sequence[int]) -> Tensor:
    """x with axes of size 1, which are counted in the result."""
    for axis in sorted(check.axes(str(node), axes, x.ndim + len(axes))):
        x = ops.unsqueeze(x, axis)
    return x


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    return ops.permute(x, tuple(reversed(range(x.ndim))) if node["perm"] is None else node["perm"])


@operator("Expand")
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return ops.broadcast_to(x, broadcast_shape("Expand", x.shape, tuple(integers(shape))))


@operator("Tile")
def tile_axis(node: Node, x: Tensor, tiles: Tensor, axis: Tensor) -> Tensor:
    (times,), (along,) = integers(tiles), check.axes(str(node), integers(axis), x.ndim)
    return ops.tile(x, [times if i == along else 1 for i in range(x.ndim)])


@operator("Tile", since=6)
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return ops.tile(x, check.sizes(str(node), "repeats", integers(repeats), x.ndim))


@operator("Concat")
def concat(node: Node, *tensors: Tensor) -> Tensor:
    return ops.concatenate(tensors, 1 if node["axis"] is None else node["axis"])


@operator("Split")
def split_by_attribute(node: Node, x: Tensor, split: Tensor | None = None) -> tuple[Tensor, ...]:
    return _parts(node, x, node["split"] if split is None else integers(split))


@operator("Split", since=13)
def split(node: Node, x: Tensor, split: Tensor | None = None) -> tuple[Tensor, ...]:
    return _parts(node, x, None if split is None else integers(split))


def _parts(node: Node, x: Tensor, sizes: list[int] | None) -> tuple[Tensor, ...]:
    """x cut along an axis into parts of these sizes, or of equal sizes, of which the last may be smaller."""
    axis, count = check.axis(str(node), node["axis"] or 0, x.ndim), len(node.outputs)
    parts = len(sizes) if sizes else (node["num_outputs"] if node.opset >= 18 else None) or count
    check.same(str(node), "number", parts, count, ("the parts", "the outputs"))
    if not sizes:
        n, size = x.shape[axis], -(-x.shape[axis] // count)
        sizes = [max(0, min(size, n - i * size)) for i in range(count)]
    return x.split(sizes, axis)


@operator("Slice")
def slice_by_attributes(node: Node, x: Tensor) -> Tensor:
    return _sliced(node, x, node["starts"], node["ends"], node["axes"])


@operator("Slice", since=10)
def slice_(
    node: Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    numbers = (None if bound is None else integers(bound) for bound in (axes, steps))
    return _sliced(node, x, integers(starts), integers(ends), *numbers)


def _sliced(
    node: Node, x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """x[start:end:step] along each of the axes; but a start before the first element is the first one, in either way.

    Going backwards from there, Python's slice is empty.
    """
    cuts = [slice(None)] * x.ndim
    places = check.axes(str(node), list(range(len(starts))) if axes is None else axes, x.ndim)
    for start, end, axis, step in zip(starts, ends, places, steps or [1] * len(places), strict=True):
        cuts[axis] = slice(max(start, -x.shape[axis]), end, step)
    return x[tuple(cuts)]


@operator("Trilu")
def trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    return (ops.triu if node["upper"] else ops.tril)(x, 0 if k is None else integers(k)[0])
