"""Convolution by columns: im2col and a matrix product.

A column holds what the kernel meets for one output. The columns of all outputs are K times the input, so they are built
for some rows of the output at a time, which stay in cache and which threads share.
Source: Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006),
section 4.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from needle.backend import device_of, xp
from needle.kernels.layout import Array, batch_first, batch_last, padded
from needle.kernels.window import Size, Window

SHORTEST = {"forward": 32, "weight": 256}  # elements of an output row from which on rows overlap
LONG = 256  # elements of an output row that needs no others beside it
REORDERED = 12  # elements whose copying costs as much as one element of a kernel in another order
SMALL_PRODUCT = 10**6  # multiplications up to which OpenBLAS multiplies without repacking: up to 1.3 times faster
NARROWEST = 48  # columns of such a product
SHARED = 1 << 24  # multiplications from which on threads share a convolution


class OutputRows(NamedTuple):
    """Rows of an output's first axis: as `part` says, `number` of them, which are `lanes` together for one product."""

    part: slice
    number: int
    lanes: int


class Columns:
    """The columns of a padded x (C, *S, N), for some rows of the output at a time: matrices (G, B, R, L).

    Rows that overlap: for each row of x the outputs of a row meet the same elements, whichever kernel row they belong
    to. So these are copied once, for the kernel positions on the other axes alone (K' of K0·K'), and the columns of an
    output row are the K0 copies that begin at it: a view. It takes a third to a half off the time of layers with 1 to
    32 channels. With a dilation of the first axis short rows go together, as its lanes, and of long ones every so
    many. B counts output rows, by lanes, R = K0·C/G·K', L = lanes·P'·N.

    Otherwise every position of the kernel is copied, or none where the columns are x itself: B = 1, R = C/G·K,
    L = rows·P'·N.
    """

    def __init__(self, x: Array, w_shape: Size, output: Size, window: Window, purpose: str) -> None:
        outs, self.share, *kernel = w_shape
        self.x, self.kernel, self.output, self.window = x, tuple(kernel), output, window
        self.row = math.prod(output[1:]) * x.shape[-1]
        self.dilation, stride = window.dilation[0], window.stride[0]
        lanes = self.dilation if self.row < LONG else 1
        saved = (output[0] - self.dilation) * (kernel[0] - stride) * self.row
        self.overlap = (
            device_of(x).strided_gemm
            and self.row * lanes >= SHORTEST[purpose]
            and 1 in (stride, self.dilation)
            and saved > REORDERED * (outs // window.groups) * kernel[0]
        )
        self.step, self.lanes = (self.dilation, lanes) if self.overlap else (1, 1)
        self.products = math.prod(w_shape) * output[0] * self.row

    def pieces(self) -> list[OutputRows]:
        """All rows of the output, as pieces for threads."""
        step, lanes = self.step, self.lanes
        copied = self.x.shape[0] * math.prod(self.kernel[self.overlap :]) * self.row * lanes * self.x.itemsize
        found = []
        for first in range(0, min(step, self.output[0]), lanes):
            rows = range(first, self.output[0] - lanes + 1, step)
            for part in device_of(self.x).chunks(len(rows), copied, self.products >= SHARED):
                chosen = slice(rows[part].start, rows[part].stop, step // lanes)
                found.append(OutputRows(chosen, (part.stop - part.start) * lanes, lanes))
        if rest := self.output[0] % lanes:
            found.append(OutputRows(slice(self.output[0] - rest, None), rest, rest))
        return found

    def build(self, rows: OutputRows) -> Array:
        """The columns (G, B, R, L) of some output rows."""
        groups, share, stride = self.window.groups, self.share, self.window.stride
        x, count, length = self.x[:, rows.part.start * stride[0] :], rows.number // rows.lanes, rows.lanes * self.row
        channel, first, *space, image = x.strides
        met = [step * d for step, d in zip(space, self.window.dilation[1:], strict=True)]
        moved = [step * s for step, s in zip(space, stride[1:], strict=True)]
        as_strided = xp(x).lib.stride_tricks.as_strided
        if not self.overlap:
            view = as_strided(
                x,
                (groups, share, *self.kernel, count, *self.output[1:], x.shape[-1]),
                (channel * share, channel, first * self.dilation, *met, first * stride[0], *moved, image),
            )
            return view.reshape(groups, 1, share * math.prod(self.kernel), count * length)
        height, rank = (count - 1) * stride[0] + self.kernel[0], share * math.prod(self.kernel[1:])
        copied = as_strided(
            x,
            (groups, height, share, *self.kernel[1:], rows.lanes, *self.output[1:], x.shape[-1]),
            (channel * share, first * self.dilation, channel, *met, first, *moved, image),
        ).copy()
        step = length * x.itemsize
        return as_strided(
            copied,
            (groups, count, self.kernel[0] * rank, length),
            (height * rank * step, stride[0] * rank * step, step, x.itemsize),
        )

    def matrix(self, w: Array) -> Array:
        """A kernel (O, C/G, *K) as the matrix (G, 1, O/G, R) that multiplies columns."""
        w = w.swapaxes(1, 2) if self.overlap else w
        matrix = w.reshape(self.window.groups, 1, w.shape[0] // self.window.groups, math.prod(w.shape[1:]))
        return xp(w).ascontiguousarray(matrix)

    def weight(self, matrix: Array) -> Array:
        """The kernel (O, C/G, *K) of a matrix (G, O/G, R)."""
        outs, (first, *others) = math.prod(matrix.shape[:2]), self.kernel
        if self.overlap:
            return xp(matrix).ascontiguousarray(matrix.reshape(outs, first, self.share, *others).swapaxes(1, 2))
        return xp(matrix).ascontiguousarray(matrix).reshape(outs, self.share, first, *others)

    def target(self, y: Array, rows: OutputRows) -> Array:
        """Rows of an output (O, *P, N) as a view (G, B, O/G, L)."""
        groups, count, length = self.window.groups, rows.number // rows.lanes, rows.lanes * self.row
        if not self.overlap:
            count, length = 1, count * length
        return y[:, rows.part].reshape(groups, y.shape[0] // groups, count, length).swapaxes(1, 2)


def correlate(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate, and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    output = window.output(x.shape[2:], w.shape[2:])
    y = xp(x).empty((w.shape[0], *output, x.shape[0]), x.dtype)
    columns = Columns(padded(x, window), w.shape, output, window, "forward")
    matrix = columns.matrix(w)

    def work(rows: OutputRows) -> None:
        multiply(matrix, columns.build(rows), columns.target(y, rows))
        add_bias(y[:, rows.part], bias)

    device_of(x).parallel_for(work, columns.pieces())
    return batch_first(y)


def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    w_shape = (y.shape[1], x.shape[1] // window.groups, *kernel)
    columns = Columns(padded(x, window), w_shape, y.shape[2:], window, "weight")
    source = xp(y).ascontiguousarray(batch_last(y))
    rows_first = y.shape[1] == window.groups  # depthwise: the product is one row for each group

    def term(rows: OutputRows) -> Array:
        block, target = columns.build(rows), columns.target(source, rows)
        # Otherwise columns first: BLAS multiplies a tall matrix by a narrow one up to twice as fast as a flat one by a
        # wide one (32 to 128 channels).
        found = target @ block.swapaxes(2, 3) if rows_first else (block @ target.swapaxes(2, 3)).swapaxes(2, 3)
        return found.sum(axis=1)

    return columns.weight(device_of(x).parallel_sum(term, columns.pieces()))


def add_bias(y: Array, bias: Array | None) -> None:
    """Add a bias (O,), if there is one, to (O, …) in place."""
    if bias is not None:
        y += bias.reshape(-1, *(1,) * (y.ndim - 1))


def multiply(matrix: Array, columns: Array, out: Array) -> None:
    """(G, 1, O/G, R), (G, B, R, L) -> out (G, B, O/G, L), on the CPU by stretches of L that make small products."""
    cuts = cut(math.prod(matrix.shape[2:]), columns.shape[3]) if device_of(matrix).strided_gemm else 1
    if cuts > 1:
        columns, out = (
            array.reshape(*array.shape[:3], cuts, array.shape[3] // cuts).swapaxes(2, 3) for array in (columns, out)
        )
        matrix = matrix[:, :, None]
    xp(matrix).matmul(matrix, columns, out=out)


@lru_cache(maxsize=4096)
def cut(products: int, length: int) -> int:
    """Into how many equal parts to cut `length` columns of `products` multiplications each, for small products."""
    most = SMALL_PRODUCT // max(1, products)
    if not NARROWEST <= most < length:
        return 1
    return next((n for n in range(-(-length // most), length // NARROWEST + 1) if length % n == 0), 1)
