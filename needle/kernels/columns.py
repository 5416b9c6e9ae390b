"""Convolution by columns: im2col, one matrix product, and col2im.

The matrix of columns (C·K, P·N) holds for every output position what the kernel meets there. It is built in blocks of
output rows that stay in cache; the whole of it, K times the input, is never held unless it is asked for (`unfold`).
Source: Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006),
section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from needle.backend_ndarray import device_of, xp
from needle.kernels.layout import Array, innermost, inside, outermost, padded, taps
from needle.kernels.window import Size, Window

BLOCK_BYTES = 1 << 21  # of columns at a time on the CPU: about what a core's second-level cache holds


def correlate(x: Array, w: Array, window: Window) -> Array:
    """Cross-correlate: (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    kernel = w.shape[2:]
    output = window.output(x.shape[2:], kernel)
    y = xp(x).empty((w.shape[0], *output, x.shape[0]), x.dtype)
    matrix, target = by_group(w, window), by_group(y, window)
    for rows, columns in _columns(padded(x, window), kernel, output, window):
        xp(x).matmul(matrix, columns, out=target[:, :, rows])
    return outermost(y)


def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    channels, output = x.shape[1] // window.groups, y.shape[2:]
    source = by_group(xp(y).ascontiguousarray(innermost(y)), window)
    rows_first = source.shape[1] == 1  # depthwise: the product is one row for each group
    # Otherwise columns first: BLAS multiplies a tall matrix by a narrow one 1.3 to 2 times faster than a flat one by a
    # wide one (32 to 128 channels).
    shape = (source.shape[1], channels * math.prod(kernel))
    w = xp(x).zeros((window.groups, *(shape if rows_first else shape[::-1])), x.dtype)
    for rows, columns in _columns(padded(x, window), kernel, output, window):
        part = source[:, :, rows]
        w += part @ columns.swapaxes(1, 2) if rows_first else columns @ part.swapaxes(1, 2)
    return xp(x).ascontiguousarray(w if rows_first else w.swapaxes(1, 2)).reshape(y.shape[1], channels, *kernel)


def correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S)."""
    kernel, output, batch = w.shape[2:], y.shape[2:], y.shape[0]
    channels = w.shape[1] * window.groups
    source = by_group(xp(y).ascontiguousarray(innermost(y)), window)
    matrix = by_group(w, window).swapaxes(1, 2)
    if is_pointwise(kernel, window):
        return outermost(product(matrix, source).reshape(channels, *output, batch))
    x = xp(y).zeros((channels, *window.padded(size), batch), y.dtype)
    if matrix.shape[1:] == (math.prod(kernel), 1):
        _add_products(x, matrix, source, kernel, output, window)
        return outermost(x[inside(size, window)])
    for start, stop in _blocks(y, channels, kernel, output, batch):
        block = (stop - start, *output[1:])
        columns = product(matrix, source[:, :, _rows(start, stop, output, batch)])
        columns = columns.reshape(channels, *kernel, *block, batch)
        for position, met in taps(window, kernel, block, start):
            x[met] += columns[(slice(None), *position)]
    return outermost(x[inside(size, window)])


def _add_products(x: Array, matrix: Array, source: Array, kernel: Size, output: Size, window: Window) -> None:
    """The columns of a depthwise kernel (G, K, 1) times y (G, 1, P·N), each added to x without being held."""
    y = source.reshape(source.shape[0], *output, x.shape[-1])
    weights = matrix.reshape(matrix.shape[0], *kernel)
    scratch = xp(x).empty_like(y)
    for position, met in taps(window, kernel, output):
        weight = weights[(slice(None), *position)].reshape(-1, *(1,) * (y.ndim - 1))
        x[met] += xp(x).multiply(y, weight, out=scratch)


def unfold(x: Array, window: Window, kernel: Size) -> Array:
    """All columns of x: (N, C, *S) -> (N, C·K, P), the positions in row-major order."""
    output = window.output(x.shape[2:], kernel)
    windows = window_view(padded(x, window), kernel, output, window)
    return outermost(windows.reshape(x.shape[1] * math.prod(kernel), math.prod(output), x.shape[0]))


def fold(columns: Array, window: Window, kernel: Size, size: Size) -> Array:
    """The transpose of `unfold`: each column added back in its place: (N, C·K, P) -> (N, C, *S).

    Sums of float16 columns accumulate in float32.
    """
    batch, channels = columns.shape[0], columns.shape[1] // math.prod(kernel)
    output = window.output(size, kernel)
    columns = innermost(columns).reshape(channels, *kernel, *output, batch)
    total = "float32" if columns.dtype == "float16" else columns.dtype
    x = xp(columns).zeros((channels, *window.padded(size), batch), total)
    for position, met in taps(window, kernel, output):
        x[met] += columns[(slice(None), *position)]
    return outermost(x[inside(size, window)]).astype(columns.dtype, copy=False)


def window_view(x: Array, kernel: Size, output: Size, window: Window) -> Array:
    """What each kernel position meets in each output of a padded (C, *S, N): a view (C, *K, *P, N)."""
    space = x.strides[1:-1]
    return xp(x).lib.stride_tricks.as_strided(
        x,
        (x.shape[0], *kernel, *output, x.shape[-1]),
        (
            x.strides[0],
            *(step * d for step, d in zip(space, window.dilation, strict=True)),
            *(step * s for step, s in zip(space, window.stride, strict=True)),
            x.strides[-1],
        ),
    )


def _columns(x: Array, kernel: Size, output: Size, window: Window) -> Iterator[tuple[slice, Array]]:
    """Blocks of the columns (G, C/G·K, P·N) of a padded (C, *S, N), each with its place in P·N.

    A block's memory is used again for the next one.
    """
    channels, batch = x.shape[0], x.shape[-1]
    if is_pointwise(kernel, window):
        yield slice(None), by_group(x, window)
        return
    windows = window_view(x, kernel, output, window)
    rank = len(kernel)
    memory = None
    for start, stop in _blocks(x, channels, kernel, output, batch):
        block = windows[(slice(None),) * (1 + rank) + (slice(start, stop),)]
        if memory is None or memory.shape != block.shape:
            memory = xp(x).empty(block.shape, x.dtype)
        memory[...] = block
        columns = memory.reshape(channels * math.prod(kernel), math.prod(block.shape[1 + rank :]))
        yield _rows(start, stop, output, batch), by_group(columns, window)


def _blocks(x: Array, channels: int, kernel: Size, output: Size, batch: int) -> Iterator[tuple[int, int]]:
    """The first axis of the output cut so that each block's columns, of the dtype of x, take about BLOCK_BYTES."""
    row = channels * math.prod(kernel) * math.prod(output[1:]) * batch * x.itemsize
    step = max(1, BLOCK_BYTES * device_of(x).block_factor // max(1, row))
    for start in range(0, output[0], step):
        yield start, min(start + step, output[0])


def _rows(start: int, stop: int, output: Size, batch: int) -> slice:
    """Output rows start to stop as a stretch of P·N."""
    row = math.prod(output[1:]) * batch
    return slice(start * row, stop * row)


def product(matrix: Array, x: Array) -> Array:
    """(G, A, B), (G, B, P) -> (G, A, P). With B = 1 (depthwise) an outer product is twice as fast as NumPy's matmul."""
    return matrix * x if matrix.shape[2] == 1 else matrix @ x


def by_group(array: Array, window: Window) -> Array:
    """(A, …) -> (G, A/G, …): the first axis by groups, all others as one."""
    rest = math.prod(array.shape[1:])
    return array.reshape(window.groups, array.shape[0] // window.groups, rest)


def is_pointwise(kernel: Size, window: Window) -> bool:
    """Whether the columns are the input itself: kernels of size 1 at stride 1, without padding."""
    return set(kernel) <= {1} and set(window.stride) <= {1} and not any(map(sum, window.padding))
