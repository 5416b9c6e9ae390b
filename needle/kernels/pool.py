"""Maxima and sums over windows, and their transposes.

A window is a box, so a reduction over it runs along one axis after another: K + K passes instead of K·K. Where it
matters which element of a window is meant, the passes go over the positions of the kernel in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from needle.backend import device_of, xp
from needle.kernels.layout import Array, batch_first, batch_last, inside, is_turned_by_blocks, padded, taps, turned
from needle.kernels.window import Size, Window

Index = tuple[slice, ...]
SHARED_IMAGES = 1 << 21  # bytes of images from which on threads share the work: with 8 MiB it takes half the time


def max_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The largest element of each window, NaN where there is one: (N, C, *S) -> (N, C, *P)."""
    lowest = -math.inf if x.dtype.kind == "f" else xp(x).iinfo(x.dtype).min
    return _reduced(x, xp(x).maximum, kernel, window, lowest)


def locate_max(x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """The row-major index in *S of what `best` is made of: (N, C, *S), (N, C, *P) -> (N, C, *P) of int64."""
    best_shape = batch_last(best).shape
    index = xp(x).zeros(best_shape, "int64")
    steps = [math.prod(x.shape[3 + axis :]) for axis in range(len(kernel))]
    for axis, (step, s, (before, _)) in enumerate(zip(steps, window.stride, window.padding, strict=True), 1):
        start = (xp(x).arange(best_shape[axis]) * s - before) * step
        index += start.reshape((-1,) + (1,) * (len(best_shape) - 1 - axis))
    for position, _, hit, _ in _hits(x, best, kernel, window):
        index += hit * sum(k * d * step for k, d, step in zip(position, window.dilation, steps, strict=True))
    return batch_first(index)


def scatter_to_max(y: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """Each y added at the first largest element of its window in x: (N, C, *P) -> (N, C, *S)."""
    size, steps = window.padded(x.shape[2:]), list(zip(window.stride, window.extent(kernel), strict=True))
    apart = all(s >= e for s, e in steps)  # no two windows share an element: what comes first need not be added
    sides = zip(window.stride, kernel, best.shape[2:], size, strict=True)
    covering = all(s == k and s * p == n for s, k, p, n in sides)
    out = (xp(y).empty if apart and covering else xp(y).zeros)((y.shape[1], *size, y.shape[0]), y.dtype)

    def scatter(y: Array, x: Array, best: Array, out: Array) -> None:
        y = batch_last(y)
        for _, met, hit, first in _hits(x, best, kernel, window):
            if apart and first:
                _only(hit, y, out[met])
            else:
                out[met] += _only(hit, y)

    _by_channels(scatter, y, x, best, out)
    return batch_first(out[inside(x.shape[2:], window)])


def gather_at_max(g: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """The elements of g where x has the first largest element of each window: (N, C, *S) -> (N, C, *P)."""
    whole = padded(g, window)
    out = xp(g).zeros((best.shape[1], *best.shape[2:], best.shape[0]), g.dtype)
    for _, met, hit, _ in _hits(x, best, kernel, window):
        out += _only(hit, whole[met])
    return batch_first(out)


def _hits(x: Array, best: Array, kernel: Size, window: Window) -> Iterator[tuple[Size, Index, Array, bool]]:
    """For each kernel position: what it meets, and where the element is there that its window's `best` is made of.

    That is the first of equal ones, but the last of several NaNs, as torch has it; never the padding. Where there may
    be NaN, each position comes a second time for them; the last entry tells whether it is the first time.
    """
    best = batch_last(best)
    whole = padded(x, window, math.nan)
    free = xp(x).ones(best.shape, bool)
    positions = list(taps(window, kernel, best.shape[1:-1]))
    # Each window has a hit where there is no NaN, so that the last position gets what is left. Where asking waits,
    # looking for NaN, which equals nothing, is cheaper.
    nans = device_of(x).is_async or bool(xp(x).isnan(best).any())
    for position, met in positions if nans else positions[:-1]:
        hit = whole[met] == best
        hit &= free
        free ^= hit
        yield position, met, hit, True
    if not nans:
        yield *positions[-1], free, True
        return
    whole = padded(x, window)
    for position, met in reversed(positions):
        hit = xp(x).isnan(whole[met]) & free
        free ^= hit
        yield position, met, hit, False


def _only(hit: Array, x: Array, out: Array | None = None) -> Array:
    """x where `hit`, elsewhere 0: a product with its bits, as inf * 0 is NaN and `where` takes ten times as long."""
    bits = f"i{x.itemsize}"
    if out is None:
        return (x.view(bits) * hit).view(x.dtype)
    xp(x).multiply(x.view(bits), hit, out=out.view(bits))
    return out


def sum_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""
    return _reduced(x, xp(x).add, kernel, window)


def spread_windows(y: Array, kernel: Size, window: Window, size: Size) -> Array:
    """The transpose of `sum_windows`: each y added to every element of its window: (N, C, *P) -> (N, C, *S)."""
    out = batch_last(y)
    for axis, n in enumerate(window.padded(size), 1):
        y, out = out, xp(y).zeros((*out.shape[:axis], n, *out.shape[axis + 1 :]), y.dtype)
        for met in _along(axis, kernel, window, y.shape[axis]):
            out[met] += y
    return batch_first(out[inside(size, window)])


def _reduced(x: Array, combine: Any, kernel: Size, window: Window, value: float = 0) -> Array:
    """All elements of each window combined by a ufunc, `value` in the padding: (N, C, *S) -> (N, C, *P)."""
    size = x.shape[2:]
    out = xp(x).empty((x.shape[1], *window.output(size, kernel), x.shape[0]), x.dtype)

    def reduce(x: Array, out: Array) -> None:
        reduced = padded(x, window, value)
        for axis, p in enumerate(out.shape[1:-1], 1):
            first, *rest = _along(axis, kernel, window, p)
            whole, reduced = reduced, reduced[first]
            for i, met in enumerate(rest):  # the last axis is reduced into what is given back, others into new memory
                into = reduced if i else out if axis == x.ndim - 2 else None
                reduced = combine(reduced, whole[met], out=into)
        if reduced is not out:
            out[...] = reduced

    _by_channels(reduce, x, out)
    return batch_first(out)


def _by_channels(work: Callable[..., None], *arrays: Array) -> None:
    """work(*inputs (N, C, …), out (C, …, N)); threads share stretches of channels from 2 MiB on.

    Shorter stretches gain nothing: most of the time goes into runs of N elements, wherever they lie.
    """
    *inputs, out = arrays
    largest, device = max(array.nbytes for array in arrays), device_of(out)
    if largest < SHARED_IMAGES or device.worker_count() == 1:
        work(*arrays)
        return
    inputs = [turned(array) if is_turned_by_blocks(array) else array for array in inputs]
    stretches = device.chunks(out.shape[0], largest // out.shape[0])
    device.parallel_for(lambda part: work(*(array[:, part] for array in inputs), out[part]), stretches, uses_blas=False)


def _along(axis: int, kernel: Size, window: Window, p: int) -> list[Index]:
    """For each position of the kernel along one axis, the index of the padded elements that it meets in p outputs."""
    k, s, d = kernel[axis - 1], window.stride[axis - 1], window.dilation[axis - 1]
    stops = [i * d + s * (p - 1) + 1 if p else 0 for i in range(k)]
    return [(slice(None),) * axis + (slice(i * d, stop, s),) for i, stop in enumerate(stops)]
