"""Padding under torch's names, built from slices, flips, broadcasts and concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check, ops
from needle.autograd import Tensor, TensorLike
from needle.kernels import at
from needle.ops.copies import apart
from needle.ops.operand import tensor

__all__ = ["pad"]

MODES = ("constant", "reflect", "replicate", "circular")
Pairs = tuple[tuple[int, int], ...]  # (before, after) for each padded axis


def pad(x: TensorLike, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add elements before and after the last axes of x: n -> before + n + after; negative numbers cut elements off.

    `pad` is (before, after) of the last axis, then of the axis before it, and so on. The modes:

    | mode | new elements | axes |
    |---|---|---|
    | `"constant"` | `value`, 0 by default | any |
    | `"reflect"` | mirror image without the edge element; at most n - 1 per side | all of *S, up to 3 |
    | `"replicate"` | the edge element | all of *S, up to 3 |
    | `"circular"` | the elements from the other end; at most n per side | all of *S, up to 3 |

    In the last three modes x is (C, *S) or (N, C, *S). Any real dtype is allowed.

    Raises `ValueError` if `pad` does not fit the shape or the mode, `TypeError` unless `pad` is a sequence of integers.

    >>> import needle as ndl
    >>> pad(ndl.Tensor([[1.0, 2.0, 3.0]]), (1, 2), mode="reflect").numpy().tolist()
    [[2.0, 1.0, 2.0, 3.0, 2.0, 1.0]]
    """
    x = tensor("pad", x)
    check.one_of("pad", "mode", mode, MODES)
    pairs = _pairs(x, pad)
    first = x.ndim - len(pairs)
    if mode == "constant":
        return ops.pad(x, ((0, 0),) * first + pairs, 0 if value is None else value)
    _check_mode(x, pairs, mode, value)
    y = x
    for axis, (before, after) in enumerate(pairs, first):
        if mode == "circular":  # elements that are cut off do not reappear at the other end
            y = _crop(y, axis, before, after)
        parts = _extended(y, axis, mode, max(before, 0), max(after, 0))
        y = ops.concatenate(parts, axis) if len(parts) > 1 else y
        if mode != "circular":
            y = _crop(y, axis, before, after)
    return apart(y, x)


def _extended(x: Tensor, axis: int, mode: str, before: int, after: int) -> list[Tensor]:
    """What `mode` adds before x along an axis, x, and what it adds after; empty parts are left out."""
    n = x.shape[axis]
    if mode == "reflect":
        head = ops.flip(_slice(x, axis, 1, 1 + before), axis)
        tail = ops.flip(_slice(x, axis, n - 1 - after, n - 1), axis)
    elif mode == "replicate":
        lead, trail = x.shape[:axis], x.shape[axis + 1 :]
        head = ops.broadcast_to(_slice(x, axis, 0, 1), (*lead, before, *trail))
        tail = ops.broadcast_to(_slice(x, axis, n - 1, n), (*lead, after, *trail))
    else:
        head, tail = _slice(x, axis, n - before, n), _slice(x, axis, 0, after)
    return [part for part, count in ((head, before), (x, 1), (tail, after)) if count]


def _crop(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Cut off -before and -after elements along an axis; positive numbers cut nothing."""
    return _slice(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))


def _slice(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """The elements from start to stop along an axis."""
    return x if (start, stop) == (0, x.shape[axis]) else ops.getitem(x, at(axis, slice(start, stop)))


def _pairs(x: Tensor, pad: Sequence[int]) -> Pairs:
    """(before, after) of each padded axis, in the order of the axes."""
    if not isinstance(pad, Sequence) or isinstance(pad, str):
        raise TypeError(f"pad: pad must be a tuple of integers, but got {pad!r}")
    pad = tuple(check.integer("pad", "pad", n) for n in pad)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: pad must hold a pair for each of at most {x.ndim} axes, but got {pad} for {x.shape}")
    return tuple(zip(pad[::2], pad[1::2], strict=True))[::-1]


def _check_mode(x: Tensor, pairs: Pairs, mode: str, value: float | None) -> None:
    """Refuse arguments that a mode other than "constant" cannot handle."""
    rank = len(pairs)
    if value:
        raise ValueError(f"pad: value must be left out in mode {mode!r}, but got {value}")
    if not 1 <= rank <= 3 or x.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"pad: mode {mode!r} must pad all of *S, 1 to 3 axes of x (C, *S) or (N, C, *S), but got {rank} pairs for "
            f"x {x.shape}"
        )
    if mode != "circular" and 0 in x.shape[-rank - 1 :]:
        raise ValueError(f"pad: no axis but N may be 0 in mode {mode!r}, but got x {x.shape}")
    for n, (before, after) in zip(x.shape[-rank:], pairs, strict=True):
        cropped = n + min(before, 0) + min(after, 0)
        most = {"reflect": n - 1, "replicate": math.inf, "circular": cropped}[mode]
        if max(before, after) > most or n + before + after < (mode != "circular"):
            raise ValueError(
                f"pad: mode {mode!r} must leave an element and add no more than there is to copy, "
                f"but got pad {(before, after)} for an axis of {n}"
            )
