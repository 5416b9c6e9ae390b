"""How layers are written: matrix products, determinants, convolutions, pooling, norms, softmaxes, losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from needle.onnx.exporting.elementwise import binary
from needle.onnx.exporting.graph import Graph, Made, known, writes
from needle.ops.conv import Correlate, CorrelateTranspose, Fold, RectifiedCorrelate, Unfold
from needle.ops.cross_entropy import CrossEntropy
from needle.ops.linalg import Det, MatMul
from needle.ops.linear import Linear, RectifiedLinear
from needle.ops.norm import Standardize
from needle.ops.pool import LocateMax, MaxPool, MaxUnpool, SumPool
from needle.ops.reduce import LogSoftmax, Softmax

__all__ = ["correlate_transpose", "window_attributes"]

writes(MatMul)(binary("MatMul"))


@writes(Linear, RectifiedLinear)
def linear(graph: Graph, made: Made, x: str, w: str, *bias: str) -> str:
    y = graph.node("MatMul", x, w)
    y = graph.node("Add", y, *bias) if bias else y
    return graph.node("Relu", y) if made.op.rectified else y


@writes(Det)
def det(graph: Graph, made: Made, x: str) -> str:
    return graph.node("Det", x)


@writes(Softmax, LogSoftmax)
def softmax(graph: Graph, made: Made, x: str) -> str:
    return graph.node(type(made.op).__name__, x, axis=made.op.axis)


@writes(CrossEntropy)
def cross_entropy(graph: Graph, made: Made, x: str, classes: str) -> str:
    if len(made.inputs[0].shape) == 1:
        x, classes = (graph.node("Unsqueeze", name, graph.constant([0])) for name in (x, classes))
    return graph.node("SoftmaxCrossEntropyLoss", x, classes, reduction="mean")


# ---- convolution -----------------------------------------------------------------------------------------------------


def window_attributes(window: Any, kernel: Any, **options: Any) -> dict[str, Any]:
    """A window as attributes."""
    before, after = zip(*window.padding, strict=True)
    dilations = None if set(window.dilation) == {1} else list(window.dilation)
    sizes = {"kernel_shape": list(kernel), "strides": list(window.stride), "pads": [*before, *after]}
    return {**sizes, "dilations": dilations, **options}


@writes(Correlate, RectifiedCorrelate)
def correlate(graph: Graph, made: Made, x: str, w: str, *bias: str) -> str:
    window, kernel = made.op.window, known(made.inputs[1].shape[2:])
    y = graph.node("Conv", x, w, *bias, **window_attributes(window, kernel, group=window.groups))
    return graph.node("Relu", y) if type(made.op) is RectifiedCorrelate else y


@writes(CorrelateTranspose)
def correlate_transpose(graph: Graph, made: Made, y: str, w: str, *bias: str) -> str:
    (_, _, *sizes), (_, _, *kernel) = made.inputs[0].shape, made.inputs[1].shape
    return _transposed(graph, made.op.window, known(kernel), known(sizes), made.op.size, y, w, *bias)


def _transposed(graph: Graph, window: Any, kernel: Any, sizes: Any, target: Any, *operands: str) -> str:
    """A ConvTranspose from `sizes` to the sizes `target`."""
    extra = [n - m for n, m in zip(target, window.input(sizes, kernel), strict=True)]
    options = window_attributes(window, kernel, group=window.groups)
    return graph.node("ConvTranspose", *operands, **options, output_padding=extra if any(extra) else None)


@writes(Unfold)
def unfold(graph: Graph, made: Made, x: str) -> str:
    """A convolution whose kernels pick one tap each."""
    kernel, channels = made.op.kernel, known(made.inputs[0].shape[1:2])[0]
    options = window_attributes(made.op.window, kernel, group=channels)
    y = graph.node("Conv", x, _picks(graph, kernel, channels, made.dtype), **options)
    return graph.reshape(y, made.spec.shape)


@writes(Fold)
def fold(graph: Graph, made: Made, columns: str) -> str:
    window, kernel, channels = made.op.window, made.op.kernel, known(made.spec.shape[1:2])[0]
    sizes = window.output(made.op.size, kernel)
    y = graph.reshape(columns, (*made.inputs[0].shape[:2], *sizes))
    picks = _picks(graph, kernel, channels, made.dtype)
    return _transposed(graph, _grouped(window, channels), kernel, sizes, made.op.size, y, picks)


def _grouped(window: Any, groups: int) -> Any:
    return type(window)(window.stride, window.padding, window.dilation, groups)


def _picks(graph: Graph, kernel: Any, channels: int, dtype: Any) -> str:
    """Kernels (C·K, 1, *K), each of which has a one at its own tap."""
    taps = math.prod(kernel)
    return graph.constant(np.tile(np.eye(taps).reshape(taps, 1, *kernel), (channels, *(1,) * (1 + len(kernel)))), dtype)


# ---- pooling ---------------------------------------------------------------------------------------------------------


@writes(MaxPool)
def max_pool(graph: Graph, made: Made, x: str) -> str:
    return graph.node("MaxPool", x, **window_attributes(made.op.window, made.op.kernel))


@writes(LocateMax)
def locate_max(graph: Graph, made: Made, x: str, best: str) -> str:
    """The second result of MaxPool counts through all of x; here each channel counts by itself."""
    _, places = graph.node_of(2, "MaxPool", x, **window_attributes(made.op.window, made.op.kernel))
    return graph.node("Mod", places, graph.constant(math.prod(known(made.inputs[0].shape[2:]))))


@writes(SumPool)
def sum_pool(graph: Graph, made: Made, x: str) -> str:
    mean = graph.node("AveragePool", x, **window_attributes(made.op.window, made.op.kernel), count_include_pad=1)
    return graph.node("Mul", mean, graph.constant(math.prod(made.op.kernel), made.dtype))


@writes(MaxUnpool)
def max_unpool(graph: Graph, made: Made, x: str, position: str) -> str:
    zeros = graph.node("Expand", graph.constant(0, made.dtype), graph.sizes(made.spec.shape))
    return graph.node("ScatterElements", zeros, position, x, axis=0)


# ---- normalization ---------------------------------------------------------------------------------------------------


@writes(Standardize)
def standardize(graph: Graph, made: Made, x: str, *affine: str) -> tuple[str | None, ...]:
    """By the operator for the last axes, the one for channels, or by means; its mean and variance are not written."""
    op, (shape, dtype) = made.op, made.inputs[0]
    names, rank = list(affine), len(shape)
    if op.form is None and op.axes == tuple(range(op.axes[0], rank)) and _is_of(op, made, op.axes[0]):
        scale = names.pop(0) if op.scaled else graph.constant(np.ones(known(shape[op.axes[0] :])), dtype)
        y = graph.node("LayerNormalization", x, scale, *names, axis=op.axes[0], epsilon=op.eps)
        names = []
    elif op.axes == tuple(range(2, rank)) and rank > 2:
        (channels,) = known(shape[1:2])
        ones, zeros = (graph.constant(np.full(channels, n), dtype) for n in (1, 0))
        parameters = [ones, zeros]
        if made.inputs[1:] and all(spec.shape == (channels,) for spec in made.inputs[1:]) and op.form is not None:
            parameters = [names[0] if op.scaled else ones, names[-1] if op.shifted else zeros]
            names = []
        y = graph.node("InstanceNormalization", x, *parameters, epsilon=op.eps)
    else:
        centered = graph.node("Sub", x, graph.reduce("ReduceMean", x, op.axes, True))
        variance = graph.reduce("ReduceMean", graph.node("Mul", centered, centered), op.axes, True)
        deviation = graph.node("Sqrt", graph.node("Add", variance, graph.constant(op.eps, dtype)))
        y = graph.node("Div", centered, deviation)
    if op.form is not None:
        names = [graph.reshape(name, op.form) for name in names]
    if names and op.scaled:
        y = graph.node("Mul", y, names[0])
    if names and op.shifted:
        y = graph.node("Add", y, names[-1])
    return graph.node("Relu", y) if op.rectified else y, *(None for _ in made.spec[1:])


def _is_of(op: Any, made: Made, axis: int) -> bool:
    """Whether weight and bias have the shape of the last axes."""
    return all(spec.shape == made.inputs[0].shape[axis:] for spec in made.inputs[1:])
