"""How ops on the elements and axes of arrays are written: shapes, reductions, joining, indexing, scattering, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle.onnx.exporting.free import Free
from needle.onnx.exporting.graph import Graph, Made, known, onnx_dtype, writes
from needle.ops.cumulative import CumSum
from needle.ops.fourier import Fourier
from needle.ops.index import GetItem, OneHot
from needle.ops.joining import Concatenate, Split, Stack
from needle.ops.order import ArgMin, ArgSort, ArgTop
from needle.ops.reduce import ArgMax, LogSumExp, Max, Mean, Min, Summation
from needle.ops.scatter import PutAlong, Scatter, TakeAlong
from needle.ops.shape import BroadcastTo, Dilate, Flip, Pad, Permute, Reshape, SumTo, UnDilate
from needle.ops.triangle import Triangle
from needle.ops.truth import Truth

__all__: list[str] = []

LAST, FIRST = 2**63 - 1, -(2**63)  # of a slice that is open

# ---- shapes ----------------------------------------------------------------------------------------------------------


@writes(Reshape)
def reshape(graph: Graph, made: Made, x: str) -> str:
    return x if made.inputs[0].shape == made.spec.shape else graph.reshape(x, made.spec.shape)


@writes(Permute)
def permute(graph: Graph, made: Made, x: str) -> str:
    if not made.op.axes:
        return x
    return graph.node("Transpose", x, perm=list(made.op.axes))


@writes(BroadcastTo)
def broadcast_to(graph: Graph, made: Made, x: str) -> str:
    if 0 in made.op.shape:
        return graph.constant(np.zeros(known(made.op.shape)), made.dtype)  # onnxruntime's Expand makes no 0 of 1
    return graph.node("Expand", x, graph.sizes(made.op.shape))


@writes(Flip)
def flip(graph: Graph, made: Made, x: str) -> str:
    axes = range(len(made.spec.shape)) if made.op.axes is None else np.atleast_1d(made.op.axes).tolist()
    if not axes:
        return x
    minus, ends = [-1] * len(axes), [FIRST] * len(axes)
    return graph.node("Slice", x, *map(graph.constant, (minus, ends, axes, minus)))


def _existing(op: Any, rank: int) -> list[int]:
    entries = op.axes if isinstance(op.axes, (tuple, list)) else (op.axes,)
    return [axis % rank for axis in entries if -rank <= axis < rank]


@writes(Dilate)
def dilate(graph: Graph, made: Made, x: str) -> str:
    """Each element padded in an axis of its own."""
    shape = made.inputs[0].shape
    axes = _existing(made.op, len(shape))
    apart = graph.reshape(x, [n for i, size in enumerate(shape) for n in ((size, 1) if i in axes else (size,))])
    after = [n for i in range(len(shape)) for n in ((0, made.op.dilation) if i in axes else (0,))]
    zero = graph.constant(0, made.dtype)
    return graph.reshape(graph.node("Pad", apart, graph.constant([0] * len(after) + after), zero), made.spec.shape)


@writes(UnDilate)
def undilate(graph: Graph, made: Made, x: str) -> str:
    axes = _existing(made.op, len(made.spec.shape))
    parts = [0] * len(axes), [LAST] * len(axes), axes, [made.op.dilation + 1] * len(axes)
    return graph.node("Slice", x, *map(graph.constant, parts))


@writes(Pad)
def pad(graph: Graph, made: Made, x: str) -> str:
    """Slice where a width is negative, Pad where one is positive."""
    crops = [(i, max(-before, 0), min(after, 0) or LAST) for i, (before, after) in enumerate(made.op.pairs)]
    crops = [crop for crop in crops if crop[1:] != (0, LAST)]
    if crops:
        axes, starts, ends = zip(*crops, strict=True)
        x = graph.node("Slice", x, *map(graph.constant, (starts, ends, axes)))
    widths = [max(pair[side], 0) for side in (0, 1) for pair in made.op.pairs]
    return graph.node("Pad", x, graph.constant(widths), graph.constant(made.op.value, made.dtype)) if any(widths) else x


# ---- reductions ------------------------------------------------------------------------------------------------------


@writes(Summation, Mean, Max, Min, LogSumExp)
def reduction(graph: Graph, made: Made, x: str) -> str:
    kinds = {"Summation": "ReduceSum", "LogSumExp": "ReduceLogSumExp"}
    kind = kinds.get(type(made.op).__name__, f"Reduce{type(made.op).__name__}")
    x = graph.cast(x, made.inputs[0], made.dtype)
    return graph.reduce(kind, x, made.op.normalized_axes(made.inputs[0]), made.op.keepdims)


@writes(Truth)
def truth(graph: Graph, made: Made, x: str) -> str:
    """Whether the number of true elements is not 0; "all" is that none is false."""
    x = graph.cast(x, made.inputs[0], np.dtype(bool))
    x = x if made.op.name == "any" else graph.node("Not", x)
    ones = graph.node("Cast", x, to=onnx_dtype("int64"))
    count = graph.reduce("ReduceSum", ones, made.op.normalized_axes(made.inputs[0]), made.op.keepdims)
    found = graph.node("Cast", count, to=onnx_dtype(bool))
    return found if made.op.name == "any" else graph.node("Not", found)


@writes(SumTo)
def sum_to(graph: Graph, made: Made, x: str) -> str:
    shape, target = made.inputs[0].shape, made.op.shape
    lead = len(shape) - len(target)
    axes = [*range(lead), *(i + lead for i, n in enumerate(target) if n == 1 and shape[i + lead] != 1)]
    return graph.reshape(graph.reduce("ReduceSum", graph.cast(x, made.inputs[0], made.dtype), axes, True), target)


@writes(CumSum)
def cumsum(graph: Graph, made: Made, x: str) -> str:
    axis = graph.constant(made.op.axis)
    return graph.node("CumSum", graph.cast(x, made.inputs[0], made.dtype), axis, reverse=int(made.op.reverse))


@writes(Fourier)
def fourier(graph: Graph, made: Made, x: str) -> str:
    axis, inverse = made.op.axis, int(made.op.inverse)
    if graph.opset < 20:
        return graph.node("DFT", x, axis=axis, inverse=inverse)
    return graph.node("DFT", x, None, graph.constant(axis), inverse=inverse)


# ---- order -----------------------------------------------------------------------------------------------------------


@writes(ArgMax, ArgMin)
def extreme_index(graph: Graph, made: Made, x: str) -> str:
    return graph.node(type(made.op).__name__, x, axis=made.op.axis, keepdims=int(made.op.keepdims))


@writes(ArgSort, ArgTop)
def order(graph: Graph, made: Made, x: str) -> str:
    count = graph.constant(known(made.spec.shape[made.op.axis :][:1]))
    return graph.node_of(2, "TopK", x, count, axis=made.op.axis, largest=int(made.op.descending))[1]


# ---- joining and splitting -------------------------------------------------------------------------------------------


@writes(Stack)
def stack(graph: Graph, made: Made, *names: str) -> str:
    axis = graph.constant([made.op.axis])
    parts = [graph.cast(name, spec, made.dtype) for name, spec in zip(names, made.inputs, strict=True)]
    return graph.node("Concat", *(graph.node("Unsqueeze", part, axis) for part in parts), axis=made.op.axis)


@writes(Concatenate)
def concatenate(graph: Graph, made: Made, *names: str) -> str:
    parts = [graph.cast(name, spec, made.dtype) for name, spec in zip(names, made.inputs, strict=True)]
    return graph.node("Concat", *parts, axis=made.op.axis)


@writes(Split)
def split(graph: Graph, made: Made, x: str) -> tuple[str, ...]:
    count = len(made.spec)
    return tuple(graph.node("Gather", x, graph.constant(i), axis=made.op.axis) for i in range(count))


# ---- indices ---------------------------------------------------------------------------------------------------------


@writes(GetItem)
def getitem(graph: Graph, made: Made, x: str, *arrays: str) -> str:
    """Slices first, then integers and index arrays, then new axes, by NumPy's rules."""
    (shape, _), *specs = made.inputs
    template = list(made.op.index)
    if Ellipsis not in template:
        template.append(Ellipsis)
    place = template.index(Ellipsis)
    missing = len(shape) - sum(entry is not None and entry is not Ellipsis for entry in template)
    template[place : place + 1] = [slice(None)] * missing
    x = _sliced(graph, x, [entry for entry in template if entry is not None])
    index = iter(
        (graph.cast(name, spec, np.dtype("int64")), len(spec.shape)) for name, spec in zip(arrays, specs, strict=True)
    )
    advanced: list[tuple[int, str, int]] = []  # axis of x, index, its rank
    kept: list[Any] = []  # what the axes of the result come from: an axis of x, or None
    where: int | None = None  # the place of the axes of the indices in `kept`
    axis, apart = 0, False
    for entry in template:
        if entry is None:
            kept.append(None)
            continue
        if isinstance(entry, slice):
            kept.append(axis)
        else:
            if where is not None and len(kept) != where:
                apart = True
            where = len(kept) if where is None else where
            is_array = not isinstance(entry, (int, Free))
            advanced.append((axis, *next(index)) if is_array else (axis, graph.constant(known([entry])[0]), 0))
        axis += 1
    rank = max((rank for _, _, rank in advanced), default=0)
    if not arrays or len(advanced) == 1:
        for axis, name, _ in reversed(advanced):
            x = graph.node("Gather", x, name, axis=axis)
    else:
        x = _gathered(graph, x, advanced, [axis for axis in kept if axis is not None])
        where = 0 if apart else where
        lead = sum(axis is not None for axis in kept[:where])
        if lead:  # the axes of the indices come first
            total = rank + sum(axis is not None for axis in kept)
            perm = [*range(rank, rank + lead), *range(rank), *range(rank + lead, total)]
            x = graph.node("Transpose", x, perm=perm)
    where = len(kept) if where is None else where
    final = [*kept[:where], *["index"] * rank, *kept[where:]]
    added = [i for i, axis in enumerate(final) if axis is None]
    return graph.node("Unsqueeze", x, graph.constant(added)) if added else x


def _sliced(graph: Graph, x: str, entries: Sequence[Any]) -> str:
    """x with the slices among `entries`, one for each axis."""
    rows = []
    for axis, entry in enumerate(entries):
        if isinstance(entry, slice) and entry != slice(None):
            step = 1 if entry.step is None else entry.step
            start = (LAST if step < 0 else 0) if entry.start is None else entry.start
            stop = (FIRST if step < 0 else LAST) if entry.stop is None else entry.stop
            rows.append((start, stop, axis, step))
    if not rows:
        return x
    starts, stops, axes, steps = zip(*rows, strict=True)
    return graph.node("Slice", x, graph.sizes(starts), graph.sizes(stops), graph.constant(axes), graph.constant(steps))


def _gathered(graph: Graph, x: str, advanced: Sequence[tuple[int, str, int]], others: Sequence[int]) -> str:
    """x at several index arrays together: their axes, then the others."""
    first = [axis for axis, _, _ in advanced]
    perm = [*first, *others]
    x = x if perm == sorted(perm) else graph.node("Transpose", x, perm=perm)
    total, *names = advanced[0][1], *(name for _, name, _ in advanced[1:])
    zero = graph.constant(0)
    for name in names:  # what all of them broadcast to
        total = graph.node("Add", total, name)
    zeros = graph.node("Mul", total, zero)
    columns = [graph.node("Add", name, zeros) for _, name, _ in advanced]
    last = graph.constant([-1])
    table = graph.node("Concat", *(graph.node("Unsqueeze", column, last) for column in columns), axis=-1)
    return graph.node("GatherND", x, table)


@writes(OneHot)
def one_hot(graph: Graph, made: Made, indices: str) -> str:
    indices = graph.cast(indices, made.inputs[0], np.dtype("int64"))
    scalar = not made.inputs[0].shape  # for which the standard has no OneHot
    indices = graph.node("Unsqueeze", indices, graph.constant([0])) if scalar else indices
    y = graph.node("OneHot", indices, graph.constant(made.op.n), graph.constant([0, 1], made.dtype))
    return graph.node("Squeeze", y, graph.constant([0])) if scalar else y


@writes(TakeAlong)
def take_along(graph: Graph, made: Made, x: str, index: str) -> str:
    return graph.node("GatherElements", x, index, axis=made.op.axis)


@writes(PutAlong)
def put_along(graph: Graph, made: Made, x: str, index: str) -> str:
    zeros = graph.node("Expand", graph.constant(0, made.dtype), graph.sizes(made.op.shape))
    return graph.node("ScatterElements", zeros, index, x, axis=made.op.axis, reduction="add")


@writes(Scatter)
def scatter(graph: Graph, made: Made, x: str, index: str, src: str) -> str:
    return graph.node("ScatterElements", x, index, src, axis=made.op.axis)


@writes(Triangle)
def triangle(graph: Graph, made: Made, x: str) -> str:
    return graph.node("Trilu", x, graph.constant(made.op.diagonal), upper=int(made.op.name == "triu"))
