"""The input gradient of a convolution as convolutions at stride 1, one for each phase of the stride.

Elements of the input that lie a stride apart meet the same elements of the kernel. So each such phase is a convolution
of y with those alone, from back to front: nothing is spread out with zeros, nothing is added back. At stride 1 it is
the convolution with the flipped kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from needle.backend import device_of, xp
from needle.kernels.layout import Array, batch_first, batch_last, swapped
from needle.kernels.window import Size, Window


class Phase(NamedTuple):
    """Along each axis: places in x, what of the kernel meets them, and what of y; and the window of these two."""

    places: tuple[slice, ...]
    taps: tuple[slice, ...]
    outputs: tuple[slice, ...]
    window: Window


def transpose_by_phases(
    correlate: Callable[[Array, Array, Window], Array], y: Array, w: Array, window: Window, size: Size
) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S), by `correlate` itself."""
    exchanged = swapped(w, window.groups)

    def derivative(phase: Phase) -> Array | None:
        kernel = xp(w).flip(exchanged[(..., *phase.taps)], tuple(range(2, w.ndim)))
        met = y[(..., *phase.outputs)]
        return None if 0 in (*kernel.shape[2:], *met.shape[2:]) else correlate(met, kernel, phase.window)

    def work(phase: Phase) -> None:
        found = derivative(phase)
        x[(slice(None), *phase.places)] = 0 if found is None else batch_last(found)

    phases = _phases(window, size, y.shape[2:], w.shape[2:])
    if len(phases) == 1 and (found := derivative(phases[0])) is not None:
        return found
    x = xp(y).empty((exchanged.shape[0], *size, y.shape[0]), y.dtype)
    device_of(y).parallel_for(work, phases)
    return batch_first(x)


@lru_cache(maxsize=4096)  # a network asks for the same ones in every step
def _phases(window: Window, size: Size, output: Size, kernel: Size) -> list[Phase]:
    """The phases of a convolution of sizes `size` with `kernel` to `output`."""
    sides = zip(size, output, kernel, window.stride, window.dilation, window.padding, strict=True)
    found = []
    for phase in itertools.product(*(_along(*side) for side in sides)):
        places, taps, outputs, padding, dilation = zip(*phase, strict=True)
        found.append(Phase(places, taps, outputs, Window((1,) * len(size), padding, dilation, window.groups)))
    return found


def _along(
    n: int, p: int, k: int, stride: int, dilation: int, padding: tuple[int, int]
) -> Iterator[tuple[slice, slice, slice, tuple[int, int], int]]:
    """The phases along an axis of `n` elements of x, `p` of y and `k` of the kernel: the parts of a Phase, its padding
    and dilation.

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
