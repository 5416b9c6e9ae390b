"""col2im: add columns back to the places they were read from; after one matrix product, that is the input gradient."""

from __future__ import annotations

import math

from needle import tuning
from needle.backend import compute_dtype, device_of, overridable, xp
from needle.kernels.conv.gemm import by_group, grouped_matmul
from needle.kernels.layout import Array, batch_first, batch_last, compact_kernel
from needle.kernels.window import Size, Window, tap_slices

__all__ = ["fold"]


@overridable
def fold(columns: Array, window: Window, kernel: Size, size: Size) -> Array:
    """The transpose of `unfold`, adding each column back to its place: (N, C·K, P) -> (N, C, *S).

    Sums of float16 columns accumulate in float32.
    """
    batch, channels = columns.shape[0], columns.shape[1] // math.prod(kernel)
    output = window.output(size, kernel)
    columns = batch_last(columns).reshape(channels, *kernel, *output, batch)  # (C, *K, *P, N)
    sum_dtype = compute_dtype(columns.dtype)
    x = xp(columns).zeros((channels, *window.padded(size), batch), sum_dtype)  # (C, *S + padding, N)
    for position, index in tap_slices(window, kernel, output):
        x[index] += columns[(slice(None), *position)]
    return batch_first(x[window.interior(size)]).astype(columns.dtype, copy=False)


def backward_data(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S).

    Threads share groups, or the channels of a single group: output rows overlap in x, so they cannot be shared.
    """
    kernel, output, batch, groups = w.shape[2:], y.shape[2:], y.shape[0], window.groups
    device, in_per_group, taps = device_of(y), w.shape[1], math.prod(kernel)
    row = math.prod(output[1:]) * batch  # elements of an output row
    matrix = by_group(compact_kernel(w), groups).swapaxes(1, 2)  # (G, C/G·K, O/G)
    source = by_group(device.xp.ascontiguousarray(batch_last(y)), groups)  # (G, O/G, P·N)
    x = device.xp.zeros((groups * in_per_group, *window.padded(size), batch), y.dtype)  # (C, *S + padding, N)

    def compute(chunk: slice) -> None:
        if groups == 1:  # a chunk of channels
            target, weights, y_part = x[chunk], matrix[:, chunk.start * taps : chunk.stop * taps], source
        else:
            target = x[chunk.start * in_per_group : chunk.stop * in_per_group]
            weights, y_part = matrix[chunk], source[chunk]
        channels = target.shape[0]
        for rows in device.chunks(output[0], channels * taps * row * y.itemsize, False):
            columns = grouped_matmul(weights, y_part[:, :, rows.start * row : rows.stop * row])
            block = (rows.stop - rows.start, *output[1:])
            columns = columns.reshape(channels, *kernel, *block, batch)  # (g, c·K, L) -> (g·c, *K, rows, *P', N)
            for position, index in tap_slices(window, kernel, block, rows.start):
                target[index] += columns[(slice(None), *position)]

    parallel = w.size * math.prod(output) * batch >= tuning.PARALLEL_COL2IM_MACS
    device.parallel_for(compute, device.chunks(groups if groups > 1 else in_per_group, 1, parallel))
    return batch_first(x[window.interior(size)])
