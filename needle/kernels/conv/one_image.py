"""The forward pass of one small image: im2col without chunks, with all that depends on shapes computed once.

A small image takes as long in Python as in BLAS. There is one matrix of columns, and products so small that OpenBLAS
computes them on one thread: neither chunks nor a limit on its threads are needed.
"""

from __future__ import annotations

import math
from functools import lru_cache

from needle import tuning
from needle.backend import device_of
from needle.kernels.layout import Array
from needle.kernels.window import Size, Window


def forward(x: Array, w: Array, image: Image, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (1, C, *S), (O, C/G, *K) -> (1, O, *P)."""
    device = device_of(x)
    if image.is_padded:
        padded = device.xp.zeros(image.padded, x.dtype)
        padded[image.interior] = x[0]
    else:
        padded = device.xp.ascontiguousarray(x)
    columns = device.strided(padded, image.view, image.strides).reshape(image.columns)
    y = device.matmul(w.reshape(image.kernel), columns)
    if bias is not None:
        y += bias.reshape(image.bias)
    return y.reshape(image.output)


class Image:
    """Shapes and strides for x (1, C, *S) and w (O, C/G, *K).

    The columns are (G, 1, R, P), with R = C/G·K, and the kernel is (G, B, O/G/B, R): B products for each group. Without
    groups both lack the axis G.
    """

    def __init__(self, x_shape: Size, w_shape: Size, window: Window, itemsize: int) -> None:
        (_, channels, *size), (out_channels, in_per_group, *kernel), groups = x_shape, w_shape, window.groups
        output = window.output(tuple(size), tuple(kernel))
        self.padded: Size = (channels, *window.padded(tuple(size)))
        self.is_padded = any(map(any, window.padding))
        self.interior = window.interior(tuple(size))[:-1]
        steps = [math.prod(self.padded[axis + 1 :]) * itemsize for axis in range(len(self.padded))]
        taps = [step * d for step, d in zip(steps[1:], window.dilation, strict=True)]
        moves = [step * s for step, s in zip(steps[1:], window.stride, strict=True)]
        self.view: Size = (channels, *kernel, *output)
        self.strides: Size = (steps[0], *taps, *moves)
        rank, places, rows = in_per_group * math.prod(kernel), math.prod(output), out_channels // groups
        blocks = split_count(rows, rank * places)
        self.is_small = rank * places * groups * itemsize <= tuning.ONE_IMAGE_BYTES
        self.columns: Size = (groups, 1, rank, places) if groups > 1 else (rank, places)
        self.kernel: Size = (groups, blocks, rows // blocks, rank) if groups > 1 else (blocks, rows // blocks, rank)
        self.bias: Size = (*self.kernel[:-1], 1)
        self.output: Size = (1, out_channels, *output)


def split_count(rows: int, macs: int) -> int:
    """Into how many products to cut a matmul with `rows` rows of `macs` multiplications each."""
    most = max(1, tuning.BLAS_ONE_THREAD_MACS // max(1, macs))  # rows of a product
    return next((blocks for blocks in range(1, rows) if rows % blocks == 0 and rows // blocks <= most), max(1, rows))


image_for = lru_cache(maxsize=1024)(Image)  # a network asks for the same shapes in every call
