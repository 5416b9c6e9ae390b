"""The columns of a whole input and back, im2col and col2im; and the input gradient by adding columns back."""

from __future__ import annotations

import math

from needle.backend import device_of, xp
from needle.kernels.layout import Array, batch_first, batch_last, inside, padded, taps
from needle.kernels.window import Size, Window

SHARED_FOLD = 1 << 22  # multiplications from which on threads share an input gradient


def unfold(x: Array, window: Window, kernel: Size) -> Array:
    """All columns of x: (N, C, *S) -> (N, C·K, P), the positions in row-major order."""
    output = window.output(x.shape[2:], kernel)
    windows = window_view(padded(x, window), kernel, output, window)
    return batch_first(windows.reshape(x.shape[1] * math.prod(kernel), math.prod(output), x.shape[0]))


def fold(columns: Array, window: Window, kernel: Size, size: Size) -> Array:
    """The transpose of `unfold`: each column added back in its place: (N, C·K, P) -> (N, C, *S).

    Sums of float16 columns accumulate in float32.
    """
    batch, channels = columns.shape[0], columns.shape[1] // math.prod(kernel)
    output = window.output(size, kernel)
    columns = batch_last(columns).reshape(channels, *kernel, *output, batch)
    total = "float32" if columns.dtype == "float16" else columns.dtype
    x = xp(columns).zeros((channels, *window.padded(size), batch), total)
    for position, met in taps(window, kernel, output):
        x[met] += columns[(slice(None), *position)]
    return batch_first(x[inside(size, window)]).astype(columns.dtype, copy=False)


def transpose_by_fold(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x, by columns of x: (N, O, *P), (O, C/G, *K) -> (N, C, *S).

    Threads share the channels of x: its rows belong to several rows of the output.
    """
    kernel, output, batch, groups = w.shape[2:], y.shape[2:], y.shape[0], window.groups
    share, row, device = w.shape[1], math.prod(output[1:]) * batch, device_of(y)
    matrix = by_group(w, window).swapaxes(1, 2)
    source = by_group(xp(y).ascontiguousarray(batch_last(y)), window)
    x = xp(y).zeros((groups * share, *window.padded(size), batch), y.dtype)

    def work(part: slice) -> None:
        """Some groups, or of a single one some channels: what other threads add does not meet them."""
        target = x[part] if groups == 1 else x[part.start * share : part.stop * share]
        one = slice(part.start * math.prod(kernel), part.stop * math.prod(kernel))
        weights, met_by = (matrix[:, one], source) if groups == 1 else (matrix[part], source[part])
        for rows in device.chunks(output[0], math.prod((len(target), *kernel)) * row * y.itemsize, False):
            columns = product(weights, met_by[:, :, rows.start * row : rows.stop * row])
            block = (rows.stop - rows.start, *output[1:])
            columns = columns.reshape(len(target), *kernel, *block, batch)
            for position, met in taps(window, kernel, block, rows.start):
                target[met] += columns[(slice(None), *position)]

    units = groups if groups > 1 else share
    device.parallel_for(work, device.chunks(units, 1, w.size * math.prod(output) * batch >= SHARED_FOLD))
    return batch_first(x[inside(size, window)])


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


def product(matrix: Array, x: Array) -> Array:
    """(G, A, B), (G, B, P) -> (G, A, P). With B = 1 (depthwise) an outer product is twice as fast as NumPy's matmul."""
    return matrix * x if matrix.shape[2] == 1 else matrix @ x


def by_group(array: Array, window: Window) -> Array:
    """(A, …) -> (G, A/G, …): the first axis by groups, all others as one."""
    rest = math.prod(array.shape[1:])
    return array.reshape(window.groups, array.shape[0] // window.groups, rest)
