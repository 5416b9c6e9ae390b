"""Depthwise convolution as products with banded (Toeplitz) matrices: no columns, no padding.

An output row of one channel is a linear map of the K0 input rows that it reads, which are one contiguous matrix (K0·S,
N) of batch-last memory. The matrix of that map (P, K0·S) holds the kernel along its diagonals and zeros elsewhere. BLAS
multiplies the zeros too, and is still faster than products of one row with columns, as long as rows are short: with 32
channels, 3x3 on 16x16, batch 64, in 0.37 of the time of im2col. A zero times an infinity or NaN in x is NaN, so it
makes all outputs NaN that read its row.
"""

from __future__ import annotations

import math
from itertools import groupby

from needle import tuning
from needle.backend import device_of, xp
from needle.kernels.conv.gemm import add_bias
from needle.kernels.layout import Array, batch_first, batch_last
from needle.kernels.window import Size, Window, reads_of_tap


def forward(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (C,): (N, C, H, S), (C, 1, K0, K1) -> (N, C, P0, P)."""
    device, (batch, channels, height, size), taps = device_of(x), x.shape, w.shape[2]
    source = device.xp.ascontiguousarray(batch_last(x))  # (C, H, S, N)
    rows, length = window.output((height, size), w.shape[2:])
    matrices = row_matrices(w, window, size, length)  # (C, P, K0·S)
    y = device.xp.empty((channels, rows, length, batch), x.dtype)
    stride, before = window.stride[0], window.padding[0][0]

    def taps_inside(row: int) -> tuple[int, int]:
        first = row * stride - before
        return max(0, -first), min(taps, height - first)

    blocks = [(inside, [*block]) for inside, block in groupby(range(rows), taps_inside)]
    item, row = source.itemsize, size * batch * source.itemsize

    def compute(chunk: slice) -> None:
        count = chunk.stop - chunk.start
        for (first, last), block in blocks:  # the rows that read the same taps: all but those at the borders
            start = block[0] * stride - before + first
            read = xp(source).lib.stride_tricks.as_strided(
                source[chunk, max(0, start) :],
                (count, len(block), max(0, last - first) * size, batch),
                (height * row, row * stride, batch * item, item),
            )
            matrix = matrices[chunk, None, :, first * size : max(first, last) * size]
            device.matmul(matrix, read, out=y[chunk, block[0] : block[-1] + 1])
        add_bias(y[chunk], None if bias is None else bias[chunk])

    macs = matrices.size * rows * batch
    device.parallel_for(
        compute, device.chunks(channels, x.nbytes // max(1, channels), macs >= tuning.PARALLEL_CONV_MACS)
    )
    return batch_first(y)


def row_matrices(w: Array, window: Window, size: int, length: int) -> Array:
    """The maps (C, P, K0·S) from input rows of `size` elements to output rows of `length`; w (C, 1, K0, K1)."""
    channels, _, taps, inner_taps = w.shape
    matrices = xp(w).zeros((channels, length, taps, size), w.dtype)
    channel, output, tap, item = matrices.strides
    stride, dilation, before = window.stride[1], window.dilation[1], window.padding[1][0]
    for k in range(inner_taps):
        reads, places = reads_of_tap(k * dilation - before, size, length, stride)
        diagonal = xp(w).lib.stride_tricks.as_strided(
            matrices[:, places.start :, :, reads.start :],
            (channels, taps, places.stop - places.start),
            (channel, tap, output + stride * item),
        )
        diagonal[...] = w[:, 0, :, k, None]
    return matrices.reshape(channels, length, taps * size)


def is_supported(window: Window, w_shape: Size) -> bool:
    """Whether a convolution with kernels (O, C/G, *K) is depthwise, over two axes, and reads consecutive rows."""
    return w_shape[:2] == (window.groups, 1) and len(w_shape) == 4 and window.dilation[0] == 1


def is_faster(x_shape: Size, w_shape: Size, window: Window) -> bool:
    """Whether products with banded matrices are faster than im2col: where rows are short and images many."""
    return (
        is_supported(window, w_shape)
        and window.groups > 1
        and math.prod(w_shape[2:]) > 1
        and x_shape[0] >= tuning.TOEPLITZ_MIN_BATCH
        and x_shape[-1] * w_shape[2] <= tuning.TOEPLITZ_MAX_TERMS
    )
