"""The three products of one trilinear form: ⟨y, conv(x, w)⟩ is linear in x, in w and in y.

    correlate            x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)
    correlate_transpose  y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)
    correlate_weight     x (N, C, *S), y (N, O, *P)   -> w (O, C/G, *K)

Each goes through the matrix of columns (C·K, P·N) that holds for every output position what the kernel meets there,
built in blocks of output rows that stay in cache; the whole matrix, K times the input, is never held. Chellapilla,
Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from needle.backend_ndarray import xp
from needle.kernels.layout import Array, innermost, inside, outermost, padded, taps
from needle.kernels.window import Size, Window

BLOCK_BYTES = 1 << 20  # of columns at a time: about what a core's second-level cache holds


def _halves_in_single(kernel: Callable[..., Array]) -> Callable[..., Array]:
    """Let a product of float16 arrays accumulate in float32."""

    @wraps(kernel)
    def run(a: Array, b: Array, *parameters: Any) -> Array:
        if a.dtype != "float16":
            return kernel(a, b, *parameters)
        return kernel(a.astype("float32"), b.astype("float32"), *parameters).astype("float16")

    return run


@_halves_in_single
def correlate(x: Array, w: Array, window: Window) -> Array:
    """Cross-correlate: (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    kernel = w.shape[2:]
    output = window.output(x.shape[2:], kernel)
    y = xp(x).empty((w.shape[0], *output, x.shape[0]), x.dtype)
    matrix, target = _by_group(w, window), _by_group(y, window)
    for rows, columns in _columns(padded(x, window), kernel, output, window):
        xp(x).matmul(matrix, columns, target[:, :, rows])
    return outermost(y)


@_halves_in_single
def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    channels, output = x.shape[1] // window.groups, y.shape[2:]
    source = _by_group(xp(y).ascontiguousarray(innermost(y)), window)
    w = xp(x).zeros((window.groups, source.shape[1], channels * math.prod(kernel)), x.dtype)
    for rows, columns in _columns(padded(x, window), kernel, output, window):
        w += source[:, :, rows] @ columns.swapaxes(1, 2)
    return w.reshape(y.shape[1], channels, *kernel)


@_halves_in_single
def correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S)."""
    kernel, output, batch = w.shape[2:], y.shape[2:], y.shape[0]
    channels = w.shape[1] * window.groups
    source = _by_group(xp(y).ascontiguousarray(innermost(y)), window)
    matrix = _by_group(w, window).swapaxes(1, 2)
    if _is_pointwise(kernel, window):
        return outermost((matrix @ source).reshape(channels, *output, batch))
    x = xp(y).zeros((channels, *window.padded(size), batch), y.dtype)
    for start, stop in _blocks(channels, kernel, output, batch, y.dtype.itemsize):
        block = (stop - start, *output[1:])
        columns = matrix @ source[:, :, _rows(start, stop, output, batch)]
        columns = columns.reshape(channels, *kernel, *block, batch)
        for position, met in taps(window, kernel, block, start):
            x[met] += columns[(slice(None), *position)]
    return outermost(x[inside(size, window)])


def _columns(x: Array, kernel: Size, output: Size, window: Window) -> Iterator[tuple[slice, Array]]:
    """Blocks of the columns (G, C/G·K, P·N) of a padded (C, *S, N), each with its place in P·N.

    A block's memory is used again for the next one.
    """
    channels, batch = x.shape[0], x.shape[-1]
    if _is_pointwise(kernel, window):
        yield slice(None), _by_group(x, window)
        return
    space = x.strides[1:-1]
    windows = xp(x).lib.stride_tricks.as_strided(
        x,
        (channels, *kernel, *output, batch),
        (
            x.strides[0],
            *(step * d for step, d in zip(space, window.dilation, strict=True)),
            *(step * s for step, s in zip(space, window.stride, strict=True)),
            x.strides[-1],
        ),
    )
    rank = len(kernel)
    memory = None
    for start, stop in _blocks(channels, kernel, output, batch, x.itemsize):
        block = windows[(slice(None),) * (1 + rank) + (slice(start, stop),)]
        if memory is None or memory.shape != block.shape:
            memory = xp(x).empty(block.shape, x.dtype)
        memory[...] = block
        yield _rows(start, stop, output, batch), _by_group(memory, window, 1 + rank)


def _blocks(channels: int, kernel: Size, output: Size, batch: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """The first axis of the output cut so that each block's columns take about BLOCK_BYTES."""
    row = channels * math.prod(kernel) * math.prod(output[1:]) * batch * itemsize
    step = max(1, BLOCK_BYTES // max(1, row))
    for start in range(0, output[0], step):
        yield start, min(start + step, output[0])


def _rows(start: int, stop: int, output: Size, batch: int) -> slice:
    """Output rows start to stop as a stretch of P·N."""
    row = math.prod(output[1:]) * batch
    return slice(start * row, stop * row)


def _by_group(array: Array, window: Window, axes: int = 1) -> Array:
    """(A, …) -> (G, A/G, …): the first `axes` axes as one, by groups, and all others as one."""
    rows, rest = math.prod(array.shape[:axes]), math.prod(array.shape[axes:])
    return array.reshape(window.groups, rows // window.groups, rest)


def _is_pointwise(kernel: Size, window: Window) -> bool:
    """Whether the columns are the input itself: kernels of size 1 at stride 1, without padding."""
    return set(kernel) <= {1} and set(window.stride) <= {1} and not any(map(sum, window.padding))
