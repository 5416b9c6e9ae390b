"""The three products of one trilinear form: ⟨y, conv(x, w)⟩ is linear in x, in w and in y.

    correlate            x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)
    correlate_transpose  y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)
    correlate_weight     x (N, C, *S), y (N, O, *P)   -> w (O, C/G, *K)

Each has more than one algorithm, chosen by name within `conv_algorithm`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from needle import check
from needle.backend_ndarray import xp
from needle.kernels import alternatives, columns
from needle.kernels.layout import Array
from needle.kernels.window import Size, Window

FORWARD: dict[str, Callable[..., Array]] = {
    "im2col": columns.correlate,
    "taps": alternatives.correlate_by_taps,
    "contraction": alternatives.correlate_by_contraction,
}
BACKWARD: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "fold": (columns.correlate_transpose, columns.correlate_weight),
    "convolution": (alternatives.transpose_by_convolution, alternatives.weight_by_convolution),
}


class _Choice(threading.local):
    forward = "im2col"
    backward = "fold"


_choice = _Choice()


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Compute convolutions of this thread by the algorithm of that name until the block ends.

    Forward: "im2col" (columns and one matrix product), "taps" (one 1x1 product per kernel position) or "contraction"
    (one view of all windows, one tensor contraction). Backward: "fold" (columns added back in their places) or
    "convolution" (both gradients as convolutions). All give the same results to rounding. Without a name it is "im2col"
    and "fold", which no layer of a small network was seen to lose by (docs/convolution.md has the measurements). Raises
    ValueError for another name.
    """
    check.one_of("conv_algorithm", "name", name, [*FORWARD, *BACKWARD])
    stage = "forward" if name in FORWARD else "backward"
    before = getattr(_choice, stage)
    setattr(_choice, stage, name)
    try:
        yield
    finally:
        setattr(_choice, stage, before)


def correlate(x: Array, w: Array, window: Window) -> Array:
    """Cross-correlate: (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    parts, window = window.trimmed(x.shape[2:], w.shape[2:])
    return _in_single(FORWARD[_choice.forward], x, w[(..., *parts)], window)


def correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S)."""
    parts, window = window.trimmed(size, w.shape[2:])
    return _in_single(BACKWARD[_choice.backward][0], y, w[(..., *parts)], window, size)


def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    parts, trimmed = window.trimmed(x.shape[2:], kernel)
    useful = tuple(len(range(k)[part]) for part, k in zip(parts, kernel, strict=True))
    w = _in_single(BACKWARD[_choice.backward][1], x, y, trimmed, useful)
    if useful == kernel:
        return w
    whole = xp(w).zeros((*w.shape[:2], *kernel), w.dtype)
    whole[(..., *parts)] = w
    return whole


def _in_single(product: Callable[..., Array], a: Array, b: Array, *parameters: Any) -> Array:
    """A product of two arrays; that of float16 arrays accumulates in float32."""
    if a.dtype != "float16":
        return product(a, b, *parameters)
    return product(a.astype("float32"), b.astype("float32"), *parameters).astype("float16")
