"""The input gradient as convolutions at stride 1, one for each phase of the stride.

Input elements that lie a stride apart read the same taps. So each such phase of x is a convolution of y with these taps
alone, in reverse order: no zeros are inserted, nothing is scattered. At stride 1 there is one phase, the convolution
with the flipped kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from needle.backend import device_of
from needle.kernels.layout import Array, batch_first, batch_last
from needle.kernels.window import Size, Window


class Phase(NamedTuple):
    """A phase of x: its places, the taps and the outputs that it reads, and the window of their convolution.

    The indices apply to arrays x (C, *S, N), w (C, O/G, *K) and y (N, O, *P).
    """

    places: tuple[Any, ...]
    taps: tuple[Any, ...]
    outputs: tuple[Any, ...]
    window: Window
    is_empty: bool  # no tap reads it, or no output: zeros


def backward_data(
    correlate: Callable[[Array, Array, Window], Array], y: Array, w: Array, window: Window, size: Size
) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x, by `correlate` itself: (N, O, *P), (O, C/G, *K) -> (N, C, *S)."""
    w = swap_channels(w, window.groups)  # (C, O/G, *K)
    phases = _phases(window, size, y.shape[2:], w.shape[2:])
    if len(phases) == 1 and not phases[0].is_empty:
        return _correlate_phase(correlate, y, w, phases[0])
    device = device_of(y)
    x = device.xp.empty((w.shape[0], *size, y.shape[0]), y.dtype)  # (C, *S, N)

    def compute(phase: Phase) -> None:
        x[phase.places] = 0 if phase.is_empty else batch_last(_correlate_phase(correlate, y, w, phase))

    device.parallel_for(compute, phases)
    return batch_first(x)


def _correlate_phase(correlate: Callable[[Array, Array, Window], Array], y: Array, w: Array, phase: Phase) -> Array:
    """One phase of x: y (N, O, *P), w (C, O/G, *K) -> (N, C, *S')."""
    return correlate(y[phase.outputs], flip_taps(w[phase.taps]), phase.window)


def only_phase(window: Window, size: Size, output: Size, kernel: Size) -> Phase:
    """The phase of a window with stride 1."""
    return _phases(window, size, output, kernel)[0]


def swap_channels(w: Array, groups: int) -> Array:
    """(O, C/G, *K) -> (C, O/G, *K): in- and out-channels exchanged within each group."""
    w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)  # (G, C/G, O/G, *K)
    return w.reshape(groups * w.shape[1], *w.shape[2:])


def flip_taps(w: Array) -> Array:
    """(O, C/G, *K) with the taps in reverse order along every axis, a view."""
    return w[(..., *(slice(None, None, -1),) * (w.ndim - 2))]


@lru_cache(maxsize=4096)  # a network asks for the same ones in every step
def _phases(window: Window, size: Size, output: Size, kernel: Size) -> list[Phase]:
    """The phases of a convolution of x of sizes `size` with `kernel` to `output`."""
    sides = zip(size, output, kernel, window.stride, window.dilation, window.padding, strict=True)
    every = slice(None)
    phases = []
    for phase in itertools.product(*(_axis_phases(*side) for side in sides)):
        places, taps, outputs, padding, dilation = zip(*phase, strict=True)
        is_empty = any(
            0 in (len(range(k)[t]), len(range(p)[o])) for t, k, o, p in zip(taps, kernel, outputs, output, strict=True)
        )
        phase_window = Window((1,) * len(size), padding, dilation, window.groups)
        phases.append(Phase((every, *places), (..., *taps), (..., *outputs), phase_window, is_empty))
    return phases


def _axis_phases(
    n: int, p: int, k: int, stride: int, dilation: int, padding: tuple[int, int]
) -> Iterator[tuple[slice, slice, slice, tuple[int, int], int]]:
    """The phases along an axis of n elements of x, p of y and k taps: places, taps, outputs, padding and dilation.

    x[i] = Σ y[q]·w[j] over stride·q + dilation·j = i + before. For i = first + stride·t the solutions are
    j = j0 + step·m and q = b + t - d·m, where step = stride / gcd and d = dilation / gcd.
    """
    common = math.gcd(stride, dilation)
    step, d = stride // common, dilation // common
    for first in range(min(stride, n)):
        place = first + padding[0]
        start = next((j for j in range(step) if (place - dilation * j) % stride == 0), k)
        taps, count = len(range(start, k, step)), len(range(first, n, stride))
        b = (place - dilation * start) // stride
        before = d * (taps - 1) - b
        after = count - p + b
        yield (
            slice(first, None, stride),
            slice(start, None, step),
            slice(max(0, -before), max(0, p - max(0, -after))),
            (max(0, before), max(0, after)),
            d,
        )
