"""Copies of a tensor side by side, and copies of each element.

NumPy's `repeat` copies each element and is torch's `repeat_interleave`; torch's `Tensor.repeat` copies the whole and is
both libraries' `tile`. So needle has no function `repeat`, and the method has torch's meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Unpack

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import cpu, to_host
from needle.kernels import Size
from needle.ops.copies import CLONE
from needle.ops.index import getitem
from needle.ops.operand import tensor
from needle.ops.scatter import with_axis
from needle.ops.shape import BroadcastTo, Reshape
from needle.words import AxisWords, respelled

__all__ = ["repeat_interleave", "tile"]


def tile(x: TensorLike, *reps: int | Sequence[int]) -> Tensor:
    """Copies of x side by side, `reps` of them along the last axes: `tile(x, 2, 3)`, `tile(x, (2, 3))`.

    If there are more `reps` than axes, axes of size 1 are put in front of x.

    >>> tile([1, 2], 2, 2)
    Tensor([[1 2 1 2]
            [1 2 1 2]])

    Raises `TypeError` unless `reps` are integers, `ValueError` for negative ones.
    """
    return _tiled(tensor("tile", x), _counts("tile", reps))


def repeat(x: Tensor, *sizes: int | Sequence[int]) -> Tensor:
    """Copies of x side by side, one number for each axis or more: torch's `Tensor.repeat`, not NumPy's `repeat`.

    Raises as `tile`; also `ValueError` for fewer `sizes` than axes.
    """
    counts = _counts("repeat", sizes)
    if len(counts) < x.ndim:
        raise ValueError(f"repeat: sizes must name each of the {x.ndim} axes of {x.shape}, but got {counts}")
    return _tiled(x, counts)


def repeat_interleave(
    x: TensorLike, repeats: int | TensorLike, axis: int | None = None, **words: Unpack[AxisWords]
) -> Tensor:
    """Each slice along `axis` repeated in place: `(…, n, …) -> (…, n · repeats, …)`, NumPy's `repeat`.

    `repeats` is one number, or n of them, one for each slice. None: the flattened x. Numbers on a device are fetched.

    >>> repeat_interleave([1, 2, 3], [2, 0, 1])
    Tensor([1 1 3])

    Raises `ValueError` for negative numbers, for other than 1 or n of them, and for an axis that x lacks; `TypeError`
    unless they are integers.
    """
    if words:
        return respelled(repeat_interleave, words, x, repeats=repeats, axis=axis)
    x = tensor("repeat_interleave", x)
    if axis is None:
        x, axis = Reshape((x.size,))(x), 0
    x, axis = with_axis("repeat_interleave", x, axis)
    counts = cpu().xp.asarray(to_host(repeats.array if isinstance(repeats, Tensor) else repeats))
    n = x.shape[axis]
    if counts.dtype.kind not in "iu" or counts.ndim > 1:
        raise TypeError(f"repeat_interleave: repeats must be integers in at most 1 axis, but got {repeats!r}")
    if counts.size and counts.min() < 0:
        raise ValueError(f"repeat_interleave: repeats must be at least 0, but got {counts.min()}")
    if counts.size == 1:
        times = int(counts.item())
        before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
        y = CLONE(BroadcastTo((*before, times, *after))(Reshape((*before, 1, *after))(x)))
        return Reshape((*x.shape[:axis], n * times, *after))(y)
    if counts.size != n:
        raise ValueError(f"repeat_interleave: repeats must be 1 number or {n}, but got {counts.size}")
    places = cpu().xp.repeat(cpu().xp.arange(n), counts)
    return getitem(x, (slice(None),) * axis + (places,))


def _counts(op: str, counts: tuple[int | Sequence[int], ...]) -> Size:
    """Numbers of copies: arguments, or one sequence."""
    entries = counts[0] if len(counts) == 1 and isinstance(counts[0], Iterable) else counts
    return tuple(check.integer(op, "sizes" if op == "repeat" else "reps", n, least=0) for n in entries)


def _tiled(x: Tensor, counts: Size) -> Tensor:
    rank = max(x.ndim, len(counts))
    shape = (1,) * (rank - x.ndim) + x.shape
    counts = (1,) * (rank - len(counts)) + counts
    rows = Reshape([n for size in shape for n in (1, size)])(x)
    repeated = BroadcastTo([n for pair in zip(counts, shape, strict=True) for n in pair])(rows)
    return Reshape([math.prod(pair) for pair in zip(counts, shape, strict=True)])(CLONE(repeated))
