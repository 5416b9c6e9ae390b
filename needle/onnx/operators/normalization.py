"""Normalisations by mean and variance, by a mean square, by a norm and by neighbouring channels."""

from __future__ import annotations

import math

from needle import check, ops
from needle.autograd import Tensor
from needle.backend import compute_dtype
from needle.nn.functional.norm import over_batch
from needle.nn.functional.scale_norm import over_channels
from needle.onnx.operators.arguments import axis_of
from needle.onnx.registry import Node, operator
from needle.ops.norm import standardized
from needle.ops.statistics import vector_norm

__all__: list[str] = []


@operator("BatchNormalization", buffers=(3, 4))
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> tuple[Tensor | None, ...]:
    """By the running statistics, or in training by those of the batch.

    A model trains by the attribute `training_mode`, before opset 14 by outputs for the statistics, before 7 unless
    `is_test`; then the running statistics are outputs. A module that trains updates them in place, too.
    """
    shape = x.shape
    if node.get("spatial") == 0:  # each element of an image is a channel
        x = ops.reshape(x, (shape[0], math.prod(shape[1:])))
        scale, bias, mean, var = (ops.reshape(value, (-1,)) for value in (scale, bias, mean, var))
    elif x.ndim == 1:
        x = ops.reshape(x, (-1, 1))
    rest = x.shape[1:2] + (1,) * (x.ndim - 2)
    wide, eps = compute_dtype(x.dtype), node["epsilon"]
    if not (is_training := _is_training(node)) and not node.training:
        factor = ops.reshape(scale.astype(wide) / ops.sqrt(var.astype(wide) + eps), rest)
        shift = ops.reshape(bias.astype(wide), rest)
        y = (x.astype(wide) - ops.reshape(mean.astype(wide), rest)) * factor + shift
        return (ops.reshape(y.astype(x.dtype), shape),)
    share = 1 - node["momentum"]
    outputs: list[Tensor] = []
    if is_training:
        axes = (0, *range(2, x.ndim))
        batch = [ops.mean(x.astype(wide), axes), ops.var(x.astype(wide), axes, correction=0)]
        outputs = [
            (old.astype(wide) * (1 - share) + new * share).astype(old.dtype)
            for old, new in zip((mean, var), batch, strict=True)
        ]
        outputs += [new.astype(x.dtype) for new in batch]
    old_mean, old_var = (mean, var) if node.training else (None, None)
    scale, bias = scale.astype(wide), bias.astype(wide)
    y = over_batch(x, old_mean, old_var, scale, bias, True, share, eps, unbiased=False)
    return (ops.reshape(y, shape), *outputs)


def _is_training(node: Node) -> bool:
    if node.opset >= 14:
        return bool(node["training_mode"])
    return any(map(node.has_output, range(1, 5))) if node.opset >= 7 else not node["is_test"]


@operator("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    form = (1, x.shape[1], *(1,) * (x.ndim - 2))
    return standardized(x, tuple(range(2, x.ndim)), scale, bias, node["epsilon"], form)[0]


@operator("GroupNormalization", since=21)
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias are per channel; those per group of opset 18 are gone, since ONNX has deprecated them."""
    groups, ones = node["num_groups"], (1,) * (x.ndim - 2)
    channels = x.shape[1] // groups
    form = (1, groups, channels, *ones)
    grouped = ops.reshape(x, (x.shape[0], groups, channels, *x.shape[2:]))
    axes = tuple(range(2, grouped.ndim))
    return ops.reshape(standardized(grouped, axes, scale, bias, node["epsilon"], form)[0], x.shape)


@operator("LayerNormalization")
def layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    axes = tuple(range(axis_of(node, x.ndim), x.ndim))
    y, _ = standardized(x, axes, scale, bias, node["epsilon"])
    if not (node.has_output(1) or node.has_output(2)):
        return y, None, None
    wide = x.astype(compute_dtype(x.dtype))
    mean, var = ops.mean(wide, axes, keepdims=True), ops.var(wide, axes, keepdims=True, correction=0)
    return y, mean.astype("float32"), ((var + node["epsilon"]) ** -0.5).astype("float32")


@operator("RMSNormalization")
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(axis_of(node, x.ndim), x.ndim))
    wide = x.astype(compute_dtype(x.dtype))
    y = wide / ops.sqrt(ops.mean(wide * wide, axes, keepdims=True) + node["epsilon"])
    return (y * scale.astype(y.dtype)).astype(scale.dtype)


@operator("LRN")
def lrn(node: Node, x: Tensor) -> Tensor:
    """The window of an even size reaches one channel further on."""
    size = node["size"]
    sides = (size - 1) // 2, size // 2
    return over_channels(x, size, sides, node["alpha"], node["beta"], node["bias"])


@operator("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    wide = x.astype(compute_dtype(x.dtype))
    length = vector_norm(wide, node["p"], (axis_of(node, x.ndim),))
    return (wide / ops.where(ops.equal(length, 0), 1.0, length)).astype(x.dtype)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = check.axes(str(node), node["axes"], x.ndim, "axes")
    wide = x.astype(compute_dtype(x.dtype))
    centred = wide - ops.mean(wide, axes, keepdims=True)
    return (centred / (ops.std(wide, axes, keepdims=True, correction=0) + 1e-9)).astype(x.dtype)
