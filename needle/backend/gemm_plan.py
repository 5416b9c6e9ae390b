"""How BLAS computes a product of arrays of any strides: which matrices it sees, and what must be copied before.

BLAS reads a matrix whose elements lie side by side along one axis, rows or columns, and a batch of them at one
distance. The axes of a @ b are of four kinds: `left` ones, of a and the result; `right` ones, of b and the result; the
sum's; and those of all three, the batch. A batch axis that b lacks, or along which broadcasting repeats b, is a left
one. Any left axis can be the rows of the matrices and any right one their columns; the others are their batch. So
arrays with the batch innermost, transposes and most slices are read as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Gemm", "Offsets", "Plan", "Sizes", "plan"]

Sizes = tuple[int, ...]
Offsets = tuple[int, int, int]

BOTH = False, True
MOST = (1 << 31) - 1  # the largest size or leading dimension that BLAS takes


class Axis(NamedTuple):
    """The size of an axis of a product, and its strides (elements) in a, b and the result; 0 where one lacks it."""

    size: int
    a: int
    b: int
    out: int


ONE = Axis(1, 0, 0, 0)
COPIES = [(a, b, out) for few in range(4) for a in BOTH for b in BOTH for out in BOTH if a + b + out == few]


class Gemm(NamedTuple):
    """One call of BLAS: out (m, n) = first (m, k) @ second (k, n), all column-major, `repeats` times.

    An operand is transposed if its matrix lies row-major. A leading dimension is the distance of columns, a step that
    of matrices (elements). `swapped`: b is first, for the result lies row-major.
    """

    swapped: bool
    first_transposed: bool
    second_transposed: bool
    m: int
    n: int
    k: int
    first_leading: int
    second_leading: int
    out_leading: int
    first_step: int
    second_step: int
    out_step: int
    repeats: int


class Plan(NamedTuple):
    """How to compute a product: what is copied to row-major order before or, the result, after; and the calls.

    The calls are one `gemm` at each of `offsets`, in elements of (a, b, out).
    """

    copies: tuple[bool, bool, bool]
    gemm: Gemm
    offsets: tuple[Offsets, ...]


def plan(shapes: tuple[Sizes, Sizes, Sizes], strides: tuple[Sizes, Sizes, Sizes], itemsize: int) -> Plan | None:
    """The plan with the fewest calls and copies for a @ b -> out, of these shapes and strides (bytes).

    The shapes are (*B, n, k), (*B, k, m) and (*B, n, m), none empty; leading axes broadcast. None if a size is beyond
    BLAS, whose sizes have 31 bits.
    """
    best, least = None, math.inf
    for copies in COPIES:
        if sum(copies) + 1 >= least:
            break
        lain = [
            _row_major(shape) if copied else tuple(step // itemsize for step in steps)
            for shape, steps, copied in zip(shapes, strides, copies, strict=True)
        ]
        found = _best_calls(_axes(shapes, lain))
        if found is not None and sum(copies) + len(found[1]) < least:
            best, least = Plan(copies, *found), sum(copies) + len(found[1])
    return best


def _row_major(shape: Sizes) -> Sizes:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _axes(shapes: Sequence[Sizes], strides: Sequence[Sizes]) -> tuple[list[Axis], list[Axis], list[Axis], Axis]:
    """The left, right and batch axes longer than 1, and the axis of the sum."""
    (n, k), m = shapes[0][-2:], shapes[1][-1]
    pairs = zip(shapes, strides, strict=True)
    a, b, out = ([0 if size == 1 else step for size, step in zip(*pair, strict=True)] for pair in pairs)
    left, right = [Axis(n, a[-2], 0, out[-2])], [Axis(m, 0, b[-1], out[-1])]
    batch: list[Axis] = []
    for position, size in enumerate(shapes[2][:-2]):
        steps = (of[i] if (i := position - len(out)) >= -len(of) else 0 for of in (a, b, out))
        axis = Axis(size, *steps)
        kind = batch if bool(axis.a) == bool(axis.b) else left if axis.a else right
        kind.append(axis)
    return _merged(left), _merged(right), _merged(batch), Axis(k, a[-1], b[-2], 0)


def _merged(axes: Iterable[Axis]) -> list[Axis]:
    """The axes, those that lie in all arrays as one made one, by falling stride of the result; without those of 1."""
    merged: list[Axis] = []
    for axis in sorted((axis for axis in axes if axis.size > 1), key=lambda axis: -axis.out):
        outer = merged[-1] if merged else None
        if outer and (outer.a, outer.b, outer.out) == (axis.a * axis.size, axis.b * axis.size, axis.out * axis.size):
            merged[-1] = Axis(outer.size * axis.size, *axis[1:])
        else:
            merged.append(axis)
    return merged


def _best_calls(axes: tuple[list[Axis], list[Axis], list[Axis], Axis]) -> tuple[Gemm, tuple[Offsets, ...]] | None:
    """The fewest calls that need no copy, of the largest matrices, and their offsets; None if there are none."""
    left, right, batch, inner = axes
    best: tuple[Gemm, list[Axis]] | None = None
    least = math.inf, 0
    for rows, columns in itertools.product(left or [ONE], right or [ONE]):
        rest = _merged(axis for axis in (*left, *right, *batch) if axis is not rows and axis is not columns)
        lanes = max((axis for axis in rest if min(axis[1:]) >= 0), default=ONE, key=lambda axis: axis.size)
        loops = [axis for axis in rest if axis is not lanes]
        cost = math.prod(axis.size for axis in loops), -rows.size * columns.size
        gemm = _gemm(rows, columns, inner, lanes) if cost < least else None
        if gemm is not None:
            best, least = (gemm, loops), cost
    if best is None:
        return None
    gemm, loops = best
    offsets = []
    for index in itertools.product(*(range(axis.size) for axis in loops)):
        at = list(zip(index, loops, strict=True))
        offsets.append((sum(i * x.a for i, x in at), sum(i * x.b for i, x in at), sum(i * x.out for i, x in at)))
    return gemm, tuple(offsets)


def _gemm(rows: Axis, columns: Axis, inner: Axis, lanes: Axis) -> Gemm | None:
    """The call for the matrices along these axes; None if BLAS cannot read or write one of them where it lies."""
    m, n, k = rows.size, columns.size, inner.size
    first, second = _leading(m, k, rows.a, inner.a), _leading(k, n, inner.b, columns.b)
    swapped, out_leading = False, _column_major(m, n, rows.out, columns.out)
    if out_leading is None:  # then its transpose: bᵀ @ aᵀ
        first, second = _leading(n, k, columns.b, inner.b), _leading(k, m, inner.a, rows.a)
        swapped, out_leading, m, n = True, _column_major(n, m, columns.out, rows.out), n, m
    if out_leading is None or first is None or second is None:
        return None
    if max(m, n, k, lanes.size, first.distance, second.distance, out_leading) > MOST:
        return None
    steps = (lanes.b, lanes.a) if swapped else (lanes.a, lanes.b)
    return Gemm(
        swapped, first.transposed, second.transposed, m, n, k,
        first.distance, second.distance, out_leading, *steps, lanes.out, lanes.size,
    )  # fmt: skip


class _Leading(NamedTuple):
    """Whether a matrix lies row-major, and the distance of its rows or, if not, of its columns."""

    transposed: bool
    distance: int


def _leading(rows: int, columns: int, down: int, across: int) -> _Leading | None:
    """How a matrix with these strides, down a column and across a row, lies; None if neither row- nor column-major."""
    leading = _column_major(rows, columns, down, across)
    if leading is not None:
        return _Leading(False, leading)
    leading = _column_major(columns, rows, across, down)
    return None if leading is None else _Leading(True, leading)


def _column_major(rows: int, columns: int, down: int, across: int) -> int | None:
    """The distance of the columns of a matrix that lie side by side in memory; None if they do not."""
    if rows > 1 and down != 1:
        return None
    if columns == 1:
        return rows
    return across if across >= rows else None
