"""Operators that read elements by their indices, by a mask, or by a threshold."""

from __future__ import annotations

from needle import check, ops
from needle.autograd import Tensor
from needle.init import arange
from needle.kernels import at
from needle.onnx.operators.arguments import axis_of, integers
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Gather")
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    return x[at(axis_of(node, x.ndim), indices)]


@operator("GatherElements")
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node, x.ndim)
    return ops.gather(x, axis, ops.take(arange(x.shape[axis], device=x.device), indices))


@operator("GatherND")
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """x at indices (\\*B, \\*I, k), each of which names an element of k axes: (\\*B, \\*I, …)."""
    batch = node["batch_dims"] if node.opset >= 12 else 0
    shape = indices.shape[:-1]
    check.same(str(node), "sizes of batch axes", x.shape[:batch], shape[:batch], ("data", "indices"))
    items = tuple(
        arange(n, device=x.device).reshape((n, *(1,) * (len(shape) - i - 1))) for i, n in enumerate(shape[:batch])
    )
    return x[items + tuple(indices[..., i] for i in range(indices.shape[-1]))]


@operator("Compress")
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    x, axis = (x.reshape(-1), 0) if node["axis"] is None else (x, axis_of(node, x.ndim))
    (places,) = condition.numpy().nonzero()
    return x[at(axis, places)]


@operator("ReverseSequence")
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """x with the first elements of each sequence, as many as it is long, in reverse order: step i is step n - 1 - i."""
    axis = check.one_of(str(node), "time_axis", node["time_axis"], (1 - node["batch_axis"],))
    steps = arange(x.shape[axis], device=x.device)
    lengths = ops.unsqueeze(lengths.astype("int64"), 1)
    reverse = ops.where(ops.less(steps, lengths), ops.subtract(lengths - 1, steps), steps)
    places = reverse if axis == 1 else ops.transpose(reverse)
    places = places.reshape((*places.shape, *(1,) * (x.ndim - 2)))
    return ops.gather(x, axis, ops.broadcast_to(places, x.shape))


@operator("OneHot", buffers=(1, 2))
def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """values[1] where an index, or index + depth if it is negative, is the place along a new axis, else values[0]."""
    indices, (n,) = indices.astype("int64"), integers(depth)
    axis = axis_of(node, indices.ndim + 1)
    indices = ops.unsqueeze(ops.where(ops.less(indices, 0), indices + n, indices), axis)
    places = arange(n, device=indices.device).reshape((n, *(1,) * (indices.ndim - axis - 1)))
    return ops.where(ops.equal(indices, places), values[1], values[0])


@operator("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    features = x[..., indices.reshape(-1)]
    return ops.unsqueeze(features, 0) if x.ndim == 1 else features


@operator("Binarizer", domain="ai.onnx.ml")
def binarizer(node: Node, x: Tensor) -> Tensor:
    return ops.greater(x, node["threshold"]).astype(x.dtype)
