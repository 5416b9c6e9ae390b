"""Ops that are written as one node with those before them: differences, means of windows, batch normalization.

In evaluation a batch normalization is arithmetic on its running statistics. As a node of its own it says that these are
no parameters. Nodes that nobody reads any more are left out at the end.
"""

from __future__ import annotations

import math

from needle.onnx.exporting.elementwise import binary, operands, with_scalar
from needle.onnx.exporting.graph import Graph, Made, writes
from needle.onnx.exporting.layers import window_attributes
from needle.ops.arithmetic import AddScalar, DivScalar, EWiseAdd, EWiseMul, Negate, PowerScalar
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
    """a - b for a + (-b); a bias behind a batch normalization is part of it."""
    if (negated := graph.origin(b, Negate)) and negated[0].dtype == made.dtype:
        return graph.node("Sub", *operands(graph, made, (a, negated[1][0])))
    if a in graph.normalized and (bias := _per_channel(graph, b, made)):
        x, scale, mean, var, eps = graph.normalized[a]
        return graph.node("BatchNormalization", x, scale, bias, mean, var, epsilon=eps)
    written: str = _add(graph, made, a, b)
    return written


@writes(EWiseMul)
def multiply(graph: Graph, made: Made, a: str, b: str) -> str:
    """(x - mean) · ((var + eps) ** -0.5 · weight), as `batch_norm` computes it in evaluation."""
    centered, scale = graph.origin(a, EWiseAdd), graph.origin(b, EWiseMul, PowerScalar)
    if centered and scale and made.dtype.kind == "f":
        weight, root = None, graph.origin(b, PowerScalar)
        if isinstance(scale[0].op, EWiseMul):
            weight = _per_channel(graph, scale[1][1], made)
            root = graph.origin(scale[1][0], PowerScalar)
        shifted = root and root[0].op.scalar == -0.5 and graph.origin(root[1][0], AddScalar)
        negated = graph.origin(centered[1][1], Negate)
        var = shifted and _per_channel(graph, shifted[1][0], made)
        mean = negated and _per_channel(graph, negated[1][0], made)
        if var and mean and shifted and (weight or isinstance(scale[0].op, PowerScalar)):
            channels = made.spec.shape[1]
            ones, zeros = (graph.constant([n] * channels, made.dtype) for n in (1, 0))
            x, eps = centered[1][0], shifted[0].op.scalar
            y = graph.node("BatchNormalization", x, weight or ones, zeros, mean, var, epsilon=eps)
            graph.normalized[y] = x, weight or ones, mean, var, eps
            return y
    written: str = _multiply(graph, made, a, b)
    return written


def _per_channel(graph: Graph, name: str, made: Made) -> str | None:
    """The values (C,) that `name` holds as (1, C, 1, …), or None."""
    found = graph.origin(name, Reshape)
    rank = len(made.spec.shape)
    if found is None or rank < 2:
        return None
    (shape, dtype), reshaped = found[0].inputs[0], found[0].spec.shape
    is_channels = shape == made.spec.shape[1:2] and reshaped == (1, *shape, *(1,) * (rank - 2))
    return found[1][0] if is_channels and dtype == made.dtype else None
