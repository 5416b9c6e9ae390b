"""Maxima and sums over windows, and their transposes, one kernel position at a time."""

from __future__ import annotations

from collections.abc import Iterator

from needle.backend_ndarray import xp
from needle.kernels.layout import Array, innermost, inside, outermost, padded, taps
from needle.kernels.window import Size, Window


def max_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The largest element of each window: (N, C, *S) -> (N, C, *P)."""
    output = window.output(x.shape[2:], kernel)
    lowest = -xp(x).inf if x.dtype.kind == "f" else xp(x).iinfo(x.dtype).min
    whole = padded(x, window, lowest)
    best = None
    for _, met in taps(window, kernel, output):
        if best is None:
            best = whole[met].copy()
        else:
            xp(x).maximum(best, whole[met], out=best)
    return outermost(best)


def scatter_to_max(y: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """Each y added at the first largest element of its window in x: (N, C, *P) -> (N, C, *S)."""
    out = xp(y).zeros((y.shape[1], *window.padded(x.shape[2:]), y.shape[0]), y.dtype)
    y = innermost(y)
    for met, hit in _first_hits(x, best, kernel, window):
        out[met] += _only(hit, y)
    return outermost(out[inside(x.shape[2:], window)])


def gather_at_max(g: Array, x: Array, best: Array, kernel: Size, window: Window) -> Array:
    """The elements of g where x has the first largest element of each window: (N, C, *S) -> (N, C, *P)."""
    whole = padded(g, window)
    out = xp(g).zeros((best.shape[1], *best.shape[2:], best.shape[0]), g.dtype)
    for met, hit in _first_hits(x, best, kernel, window):
        out += _only(hit, whole[met])
    return outermost(out)


def _first_hits(x: Array, best: Array, kernel: Size, window: Window) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """For each kernel position: what it meets, and where the first largest element of the window is there."""
    best = innermost(best)
    whole = padded(x, window, xp(x).nan)  # padding is never the largest, not even beside -inf
    free = xp(x).ones(best.shape, bool)
    for _, met in taps(window, kernel, best.shape[1:-1]):
        hit = (whole[met] == best) & free
        free ^= hit
        yield met, hit


def _only(hit: Array, x: Array) -> Array:
    """x where `hit`, elsewhere 0: a product with its bits, as inf * 0 is NaN and `where` takes ten times as long."""
    return (x.view(f"i{x.itemsize}") * hit).view(x.dtype)


def sum_windows(x: Array, kernel: Size, window: Window) -> Array:
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""
    whole = padded(x, window)
    out = xp(x).zeros((x.shape[1], *window.output(x.shape[2:], kernel), x.shape[0]), x.dtype)
    for _, met in taps(window, kernel, out.shape[1:-1]):
        out += whole[met]
    return outermost(out)


def spread_windows(y: Array, kernel: Size, window: Window, size: Size) -> Array:
    """The transpose of `sum_windows`: each y added to every element of its window: (N, C, *P) -> (N, C, *S)."""
    out = xp(y).zeros((y.shape[1], *window.padded(size), y.shape[0]), y.dtype)
    y = innermost(y)
    for _, met in taps(window, kernel, y.shape[1:-1]):
        out[met] += y
    return outermost(out[inside(size, window)])
