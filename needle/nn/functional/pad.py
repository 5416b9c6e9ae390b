"""Padding under torch's names, built of slices, flips, broadcasts and concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check, ops
from needle.ops.operand import number, tensor

MODES = ("constant", "reflect", "replicate", "circular")


def pad(x, pad, mode="constant", value=None):
    """Elements added before and after the last axes of x: n -> before + n + after; negative numbers cut elements off.

    `pad` is (before, after) of the last axis, then of the one before it, and so on. What is added: `value`, by default
    0 ("constant"), the mirror image without its first element ("reflect"), the outermost element ("replicate"), or what
    lies at the other end ("circular"). The last three modes pad all of *S in (C, *S) or (N, C, *S), up to 3 axes.

    Raises ValueError where `pad` does not fit the shape or the mode, TypeError where it is not of integers.
    """
    x = tensor("pad", x)
    check.one_of("pad", "mode", mode, MODES)
    pairs = _pairs(x, pad)
    first = x.ndim - len(pairs)
    if mode == "constant":
        return ops.pad(x, ((0, 0),) * first + pairs, _fill(x, value))
    _check_mode(x, pairs, mode, value)
    for axis, (before, after) in enumerate(pairs, first):
        if mode == "circular":
            x = _between(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        parts = _around(x, axis, mode, max(before, 0), max(after, 0))
        x = ops.concatenate(parts, axis) if len(parts) > 1 else x
        if mode != "circular":
            x = _between(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
    return x


def _around(x, axis, mode, before, after):
    """x between what is added to it along one axis; what is empty is left out."""
    n = x.shape[axis]
    if mode == "reflect":
        head, tail = (ops.flip(_between(x, axis, *ends), axis) for ends in ((1, 1 + before), (n - 1 - after, n - 1)))
    elif mode == "replicate":
        head, tail = (
            ops.broadcast_to(_between(x, axis, i, i + 1), (*x.shape[:axis], count, *x.shape[axis + 1 :]))
            for i, count in ((0, before), (n - 1, after))
        )
    else:
        head, tail = _between(x, axis, n - before, n), _between(x, axis, 0, after)
    return [part for part, count in ((head, before), (x, 1), (tail, after)) if count]


def _between(x, axis, start, stop):
    """The elements from start to stop along one axis."""
    return x if (start, stop) == (0, x.shape[axis]) else ops.getitem(x, (slice(None),) * axis + (slice(start, stop),))


def _pairs(x, pad):
    """(before, after) of each padded axis, the first of them first."""
    if not isinstance(pad, Sequence) or isinstance(pad, str):
        raise TypeError(f"pad: pad must be a tuple of integers, but got {pad!r}")
    pad = tuple(check.integer("pad", "pad", n) for n in pad)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: pad must hold a pair for each of at most {x.ndim} axes, but got {pad} for {x.shape}")
    return tuple(zip(pad[::2], pad[1::2], strict=True))[::-1]


def _fill(x, value):
    """The value that "constant" fills in."""
    value = 0 if value is None else number("pad", value)
    if x.dtype.kind != "f" and not math.isfinite(value):
        raise ValueError(f"pad: value must be finite for an x of {x.dtype}, but got {value}")
    return value


def _check_mode(x, pairs, mode, value):
    """Refuse what a mode other than "constant" cannot pad."""
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
        left = n + min(before, 0) + min(after, 0)
        most = {"reflect": n - 1, "replicate": math.inf, "circular": left}[mode]
        if max(before, after) > most or n + before + after < (mode != "circular"):
            raise ValueError(
                f"pad: mode {mode!r} must leave an element and add no more than there is to copy, "
                f"but got pad {(before, after)} for an axis of {n}"
            )
