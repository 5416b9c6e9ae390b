"""Maxima and sums over windows, and their transposes.

A window is a box, so a reduction over it runs along one axis after another: K + K passes instead of K·K. Where the
place of an element in its window matters, the passes go over the taps in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from needle import tuning
from needle.backend import device_of, overridable, xp
from needle.kernels.layout import (
    Array,
    batch_first,
    batch_last,
    needs_blocked_copy,
    pad_to_batch_last,
    to_batch_last,
)
from needle.kernels.window import Index, Size, Window, at, axis_slices, tap_slices

__all__ = ["gather_at_max", "locate_max", "max_windows", "scatter_to_max", "spread_windows", "sum_windows"]


@overridable
def max_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The maximum of each window, NaN if it holds one: (N, C, *S) -> (N, C, *P)."""
    lowest = -math.inf if x.dtype.kind == "f" else xp(x).iinfo(x.dtype).min
    return _window_reduce(x, xp(x).maximum, kernel, window, lowest)


@overridable
def locate_max(x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """The row-major index in *S of each window's maximum `best`: (N, C, *S), (N, C, *P) -> (N, C, *P) of int64."""
    shape = batch_last(best).shape  # (C, *P, N)
    index = xp(x).zeros(shape, "int64")
    steps = [math.prod(x.shape[3 + axis :]) for axis in range(len(kernel))]
    for axis, (step, s, (before, _)) in enumerate(zip(steps, window.stride, window.padding, strict=True), 1):
        start = (xp(x).arange(shape[axis]) * s - before) * step  # (P,): where the windows start along this axis
        index += start.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
    for position, _, mask, _ in _max_masks(x, best, kernel, window):
        index += mask * sum(k * d * step for k, d, step in zip(position, window.dilation, steps, strict=True))
    return batch_first(index)


@overridable
def scatter_to_max(y: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """Add each y to the element of x that is its window's maximum: y, best (N, C, *P), x (N, C, *S) -> (N, C, *S)."""
    size, output = window.padded(x.shape[2:]), best.shape[2:]
    extent = window.extent(kernel)
    disjoint = all(s >= e for s, e in zip(window.stride, extent, strict=True))  # then the first pass need not add
    sides = zip(window.stride, kernel, output, size, strict=True)
    tiled = disjoint and all(s == k and s * p == n for s, k, p, n in sides)  # then the first passes write everything
    x_grad = (xp(y).empty if tiled else xp(y).zeros)((y.shape[1], *size, y.shape[0]), y.dtype)  # (C, *S + padding, N)

    def scatter(y: Array, x: Array, best: Array, out: Array) -> None:
        y = batch_last(y)
        for _, index, mask, is_first in _max_masks(x, best, kernel, window):
            if disjoint and is_first:
                _masked(mask, y, out[index])
            else:
                out[index] += _masked(mask, y)

    _by_channel_chunks(scatter, y, x, best, x_grad)
    return batch_first(x_grad[window.interior(x.shape[2:])])


@overridable
def gather_at_max(g: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """The element of g at each window's maximum in x: g, x (N, C, *S), best (N, C, *P) -> (N, C, *P)."""
    padded = pad_to_batch_last(g, window)
    out = xp(g).zeros((best.shape[1], *best.shape[2:], best.shape[0]), g.dtype)
    for _, index, mask, _ in _max_masks(x, best, kernel, window):
        out += _masked(mask, padded[index])
    return batch_first(out)


def _max_masks(x: Array, best: Array, kernel: Size, window: Window) -> Iterator[tuple[Size, Index, Array, bool]]:
    """For each tap: its position, the index of the elements it reads, and a mask of the windows whose maximum it reads.

    Each window belongs to one mask: the first of equal elements, the last of several NaNs, as in torch; never padding.
    If x may hold NaN, the taps follow a second time in reverse, to mark the NaN; the last entry is False then.
    """
    best = batch_last(best)  # (C, *P, N)
    is_float = x.dtype.kind == "f"
    padded = pad_to_batch_last(x, window, math.nan if is_float else 0)
    inside = None if is_float else pad_to_batch_last(xp(x).ones(x.shape, bool), window)
    unclaimed = None  # all windows, before the first tap
    taps = tap_slices(window, kernel, best.shape[1:-1])
    # Without NaN every window has a maximum, so the last tap takes what is unclaimed. On an asynchronous device asking
    # for NaN would wait; a second round, which finds nothing, is cheaper.
    may_have_nan = is_float and (device_of(x).is_async or bool(xp(x).isnan(best).any()))
    for position, index in taps if may_have_nan else taps[:-1]:
        mask = padded[index] == best
        if inside is not None:
            mask &= inside[index]
        if unclaimed is None:
            unclaimed = ~mask
        else:
            mask &= unclaimed
            unclaimed ^= mask
        yield position, index, mask, True
    if unclaimed is None:  # a single tap takes all
        unclaimed = xp(x).ones(best.shape, bool)
    if not may_have_nan:
        yield *taps[-1], unclaimed, True
        return
    padded = pad_to_batch_last(x, window)
    for position, index in reversed(taps):
        mask = xp(x).isnan(padded[index]) & unclaimed
        unclaimed ^= mask
        yield position, index, mask, False


def _masked(mask: Array, x: Array, out: Array | None = None) -> Array:
    """x where `mask`, elsewhere 0. It multiplies bits: inf * 0 is NaN, and `where` takes ten times as long."""
    bits = f"i{x.itemsize}"
    if out is None:
        return (x.view(bits) * mask).view(x.dtype)
    xp(x).multiply(x.view(bits), mask, out=out.view(bits))
    return out


@overridable
def sum_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""
    return _window_reduce(x, xp(x).add, kernel, window)


@overridable
def spread_windows(y: Array, kernel: Size, window: Window, size: Size) -> Array:
    """The transpose of `sum_windows`, adding each y to every element of its window: (N, C, *P) -> (N, C, *S)."""
    out = batch_last(y)  # (C, *P, N); each pass makes one axis P an axis S
    for axis, n in enumerate(window.padded(size)):
        y, out = out, xp(y).zeros((*out.shape[: 1 + axis], n, *out.shape[2 + axis :]), y.dtype)
        for part in axis_slices(window, axis, kernel[axis], y.shape[1 + axis]):
            out[at(1 + axis, part)] += y
    return batch_first(out[window.interior(size)])


def _window_reduce(x: Array, ufunc: Any, kernel: Size, window: Window, value: float = 0) -> Array:
    """Combine the elements of each window by a binary ufunc, `value` in the padding: (N, C, *S) -> (N, C, *P)."""
    output, passes = _window_passes(window, kernel, x.shape[2:])
    out = xp(x).empty((x.shape[1], *output, x.shape[0]), x.dtype)

    def reduce(x: Array, out: Array) -> None:
        result = pad_to_batch_last(x, window, value)  # (C, *S, N); each pass makes one axis S an axis P
        for first, others, is_last in passes:
            source, result = result, result[first]
            # The last axis is reduced straight into `out`. Another one needs memory for its first step only.
            target = out if is_last else None
            for part in others:
                target = result = ufunc(result, source[part], out=target)
        if result is not out:
            out[...] = result

    _by_channel_chunks(reduce, x, out)
    return batch_first(out)


@lru_cache(maxsize=1024)
def _window_passes(window: Window, kernel: Size, size: Size) -> tuple[Size, list[tuple[Index, list[Index], bool]]]:
    """*P, and for each axis the indices of what its taps read, the first and the others, and whether it is the last."""
    output, passes = window.output(size, kernel), []
    for axis, p in enumerate(output):
        first, *others = [at(1 + axis, part) for part in axis_slices(window, axis, kernel[axis], p)]
        passes.append((first, others, axis == len(output) - 1))
    return output, passes


def _by_channel_chunks(work: Callable[..., None], *arrays: Array) -> None:
    """Call work(*inputs (N, C, …), out (C, …, N)) on chunks of channels, which threads share, if the images are large.

    A chunk stays in cache from one tap to the next: 8 MiB take a tenth less time in chunks of 1 MiB. Smaller chunks
    gain nothing: most of the time goes into runs of N elements, wherever they lie.
    """
    *inputs, out = arrays
    largest, device = max(array.nbytes for array in arrays), device_of(out)
    if largest < tuning.PARALLEL_POOL_BYTES:
        work(*arrays)
        return
    inputs = [to_batch_last(array) if needs_blocked_copy(array) else array for array in inputs]

    def compute(chunk: slice) -> None:
        work(*(array[:, chunk] for array in inputs), out[chunk])

    device.parallel_for(compute, device.chunks(out.shape[0], 2 * largest // out.shape[0], True), uses_blas=False)
