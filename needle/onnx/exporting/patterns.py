"""Ops that are written as one node with those before them: differences, biases, means of windows, batch norms.

In evaluation a batch normalization is arithmetic on its running statistics. As a node of its own it says that these are
no parameters. Nodes that nobody reads any more are left out at the end.
"""

from __future__ import annotations

import math

from needle.onnx.exporting.elementwise import binary, operands, with_scalar
from needle.onnx.exporting.graph import Graph, Made, writes
from needle.onnx.exporting.layers import correlate_transpose, window_attributes
from needle.ops.arithmetic import AddScalar, DivScalar, EWiseAdd, EWiseDiv, EWiseMul, Negate, PowerScalar
from needle.ops.conv import CorrelateTranspose
from needle.ops.elementwise import Sqrt
from needle.ops.pool import SumPool
from needle.ops.shape import Reshape

__all__: list[str] = []

_add, _multiply = binary("Add", "Or"), binary("Mul", "And")


@writes(DivScalar)
def divide_scalar(graph: Graph, made: Made, x: str) -> str:
    """A sum of windows by their size is an AveragePool."""
    if (found := graph.origin(x, SumPool)) and math.prod(found[0].op.kernel) == made.op.scalar:
        op, (operand,) = found[0].op, found[1]
        return graph.node("AveragePool", operand, **window_attributes(op.window, op.kernel), count_include_pad=1)
    return with_scalar(graph, made, x)


@writes(EWiseAdd)
def add(graph: Graph, made: Made, a: str, b: str) -> str:
    """a - b for a + (-b); a bias behind a batch normalization or a transposed convolution is part of it."""
    if (negated := graph.origin(b, Negate)) and negated[0].dtype == made.dtype:
        return graph.node("Sub", *operands(graph, made, (a, negated[1][0])))
    transposed = graph.origin(a, CorrelateTranspose)
    if transposed and len(transposed[1]) > 2:  # it has a bias already
        transposed = None
    if (a in graph.normalized or transposed) and (bias := _per_channel(graph, b, made)):
        if transposed:
            return correlate_transpose(graph, transposed[0], *transposed[1], bias)
        x, scale, mean, var, eps = graph.normalized[a]
        return graph.node("BatchNormalization", x, scale, bias, mean, var, epsilon=eps)
    written: str = _add(graph, made, a, b)
    return written


@writes(EWiseMul)
def multiply(graph: Graph, made: Made, a: str, b: str) -> str:
    """(x - mean) · weight / sqrt(var + eps), as `batch_norm` and a loaded BatchNormalization compute it."""
    centered, scale = graph.origin(a, EWiseAdd), _scale(graph, b, made)
    negated = centered and graph.origin(centered[1][1], Negate)
    mean = negated and _per_channel(graph, negated[1][0], made)
    if centered and mean and scale:
        ones, zeros = (graph.constant([n] * made.spec.shape[1], made.dtype) for n in (1, 0))
        weight, var, eps = scale
        x = centered[1][0]
        y = graph.node("BatchNormalization", x, weight or ones, zeros, mean, var, epsilon=eps)
        graph.normalized[y] = x, weight or ones, mean, var, eps
        return y
    written: str = _multiply(graph, made, a, b)
    return written


def _scale(graph: Graph, name: str, made: Made) -> tuple[str | None, str, float] | None:
    """The weight, if any, the variance and eps of a scale that a batch normalization multiplies by."""
    weight: str | None = None
    if (product := graph.origin(name, EWiseMul)) and (weight := _per_channel(graph, product[1][1], made)):
        name = product[1][0]
    if (root := graph.origin(name, PowerScalar)) and root[0].op.scalar == -0.5:
        shifted = graph.origin(root[1][0], AddScalar)
        var = shifted and _per_channel(graph, shifted[1][0], made)
    else:
        quotient = graph.origin(_per_channel(graph, name, made) or "", EWiseDiv)
        root = quotient and graph.origin(quotient[1][1], Sqrt)
        shifted = root and graph.origin(root[1][0], AddScalar)
        weight, var = (quotient[1][0], shifted[1][0]) if quotient and shifted else (None, None)
    return (weight, var, shifted[0].op.scalar) if shifted and var else None


def _per_channel(graph: Graph, name: str, made: Made) -> str | None:
    """The values (C,) that `name` holds as (1, C, 1, …) or (C, 1, …), or None."""
    found = graph.origin(name, Reshape)
    rank = len(made.spec.shape)
    if found is None or rank < 2 or made.dtype.kind != "f":
        return None
    (shape, dtype), reshaped = found[0].inputs[0], found[0].spec.shape
    last = (*shape, *(1,) * (rank - 2))
    is_channels = shape == made.spec.shape[1:2] and reshaped in (last, (1, *last))
    return found[1][0] if is_channels and dtype == made.dtype else None
