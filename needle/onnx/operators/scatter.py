"""Operators that write elements by their indices.

Each place of a write is its number in the flattened tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np

from needle import check, ops
from needle.autograd import Tensor
from needle.init import arange
from needle.onnx.operators.arguments import axis_of
from needle.onnx.registry import Node, operator

__all__: list[str] = []

_COMBINE = {"mul": ops.multiply, "max": ops.maximum, "min": ops.minimum}


@operator("Scatter", since=9)
@operator("ScatterElements")
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = axis_of(node, x.ndim)
    check.same(str(node), "rank", x.ndim, indices.ndim, ("data", "indices"))
    return _written(node, x, _places_along(x, indices, axis), updates, _reduction(node))


@operator("ScatterND")
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with slices written at indices (\\*I, k), each of which names the slice of k axes."""
    count = indices.shape[-1]
    inner = math.prod(x.shape[count:])
    firsts = reduce(ops.add, (_numbers(x, i, indices[..., i]) for i in range(count)))
    places = ops.unsqueeze(firsts, -1) + arange(inner, device=x.device)
    return _written(node, x, places.reshape(indices.shape[:-1] + x.shape[count:]), updates, _reduction(node))


@operator("TensorScatter")
def tensor_scatter(node: Node, cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """The cache with an update that starts, along an axis, at a place of its own for each item of the batch."""
    axis = axis_of(node, cache.ndim)
    steps = arange(update.shape[axis], device=cache.device).reshape((-1, *(1,) * (cache.ndim - axis - 1)))
    if starts is not None:
        steps = starts.astype("int64").reshape((-1, *(1,) * (cache.ndim - 1))) + steps
    if node["mode"] == "circular":
        steps = steps % cache.shape[axis]
    return _written(node, cache, _places_along(cache, ops.broadcast_to(steps, update.shape), axis), update, "none")


def _reduction(node: Node) -> str:
    if node.opset < 16:
        return "none"
    return str(check.one_of(str(node), "reduction", node["reduction"], ("none", "add", *_COMBINE)))


def _places_along(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The places […, indices[…, j, …], …] of x."""
    grid = (arange(n, device=x.device).reshape((n, *(1,) * (x.ndim - i - 1))) for i, n in enumerate(indices.shape))
    return reduce(ops.add, (_numbers(x, i, indices if i == axis else line) for i, line in enumerate(grid)))


def _numbers(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """What indices along an axis add to a place; negative ones count from the end. `take` refuses others."""
    stride = math.prod(x.shape[axis + 1 :])
    return ops.take(arange(x.shape[axis], device=x.device) * stride, index)


def _written(node: Node, x: Tensor, places: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """x with `updates` at `places`, put there or combined with what is there, in order."""
    check.same(str(node), "shape", places.shape, updates.shape, ("the places of indices", "updates"))
    y, places, updates = (value.reshape(-1) for value in (x, places, updates))
    if reduction == "none":
        y = ops.scatter(y, 0, places, updates)
    elif reduction == "add":
        y = ops.scatter_add(y, 0, places, updates)
    else:
        for chosen in _rounds(places):
            target = places[chosen]
            y = ops.scatter(y, 0, target, _COMBINE[reduction](y[target], updates[chosen]))
    return y.reshape(x.shape)


def _rounds(places: Tensor) -> Iterator[Sequence[int]]:
    """The updates in rounds: the first at each place, the second at each place, and so on."""
    numbers = places.numpy()
    order = np.argsort(numbers, kind="stable")
    _, counts = np.unique(numbers, return_counts=True)
    turns = np.arange(numbers.size) - np.repeat(np.cumsum(counts) - counts, counts)
    for turn in range(counts.max(initial=0)):
        yield order[turns == turn]
