"""im2col: convolution as one matrix product with columns, which hold what the kernel reads for each output.

At stride 1 all columns together are K times the input. So they are built for a chunk of output rows at a time, which
stays in the cache; threads share the chunks.

Source: Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006),
section 4.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

from needle import tuning
from needle.backend import Device, device_of, overridable, xp
from needle.kernels.conv import one_image
from needle.kernels.conv.gemm import add_bias, blocked_matmul, split_count
from needle.kernels.layout import (
    Array,
    Padded,
    batch_first,
    batch_last,
    compact_kernel,
    pad_to_batch_last,
    zero_outside,
)
from needle.kernels.window import Index, Size, Window, check_conv, reads_of_tap

__all__ = ["unfold"]


def forward(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    if x.shape[0] == 1 and (image := one_image.image_for(x.shape, w.shape, window, x.itemsize)).is_small:
        return one_image.forward(x, w, image, bias)
    device, padded = device_of(x), Padded(x, window)
    columns = columns_for(x.shape, w.shape, window, x.itemsize, device.strided_gemm, tuning.OVERLAP_MIN_ROW_FORWARD)
    y = device.xp.empty((w.shape[0], *columns.output, x.shape[0]), x.dtype)  # (O, *P, N)
    matrix = columns.kernel_matrix(w)

    def compute(rows: RowChunk) -> None:
        blocked_matmul(device, matrix, columns.build(padded, rows), columns.output_matrix(y, rows))
        add_bias(y[:, rows.part], bias)

    device.parallel_for(compute, columns.chunks(device), shared=columns.macs >= tuning.PARALLEL_CONV_MACS)
    return batch_first(y)


def backward_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, forward(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    device, w_shape = device_of(x), (y.shape[1], x.shape[1] // window.groups, *kernel)
    padded = Padded(x, window)
    target = device.xp.ascontiguousarray(batch_last(y))  # (O, *P, N)
    columns = columns_for(
        x.shape, w_shape, window, x.itemsize, device.strided_gemm, tuning.OVERLAP_MIN_ROW_BACKWARD_WEIGHT
    )
    one_row = y.shape[1] == window.groups  # depthwise: the product has one row per group

    def term(rows: RowChunk) -> Array:
        block = columns.build(padded, rows)  # (G, B, R, L)
        y_block = columns.output_matrix(target, rows)  # (G, B, O/G, L)
        if one_row:
            return device.matmul(y_block, block.swapaxes(2, 3)).sum(axis=1)  # (G, 1, R)
        # BLAS multiplies tall by narrow up to twice as fast as flat by wide (32 to 128 channels).
        return device.matmul(block, y_block.swapaxes(2, 3)).swapaxes(2, 3).sum(axis=1)  # (G, O/G, R)

    return columns.kernel(device.parallel_sum(term, columns.chunks(device)))


def forward_and_weight(x: Array, w: Array, window: Window, y: Array) -> tuple[Array, Array]:
    """`forward(x, w)` and `backward_weight(x, y)`, (N, O, *P) and (O, C/G, *K), from the same overlapping rows.

    The gradient in w has one product for each tap, as in `taps`, of what the tap reads from the gathered rows.
    """
    device, padded = device_of(x), Padded(x, window)
    columns = columns_for(x.shape, w.shape, window, x.itemsize, device.strided_gemm, tuning.OVERLAP_MIN_ROW_FORWARD)
    result = device.xp.empty((w.shape[0], *columns.output, x.shape[0]), x.dtype)  # (O, *P, N)
    target = device.xp.ascontiguousarray(batch_last(y))  # (O, *P, N)
    matrix = columns.kernel_matrix(w)

    def term(rows: RowChunk) -> Array:
        block = columns.build(padded, rows)  # (G, B, R, L)
        blocked_matmul(device, matrix, block, columns.output_matrix(result, rows))
        return columns.tap_products(block, columns.output_matrix(target, rows))

    products = device.parallel_sum(term, columns.chunks(device))
    return batch_first(result), columns.kernel_of_taps(products)


@overridable
def unfold(x: Array, window: Window, kernel: Size) -> Array:
    """All columns of x, with positions in row-major order: (N, C, *S) -> (N, C·K, P)."""
    channels = x.shape[1]
    check_conv(x.shape, (window.groups, channels // window.groups, *kernel), None, window)
    output = window.output(x.shape[2:], kernel)
    view = window_view(pad_to_batch_last(x, window), kernel, output, window)  # (C, *K, *P, N)
    # A copy of its own: a kernel of one element would see x itself.
    return batch_first(view.copy().reshape(channels * math.prod(kernel), math.prod(output), x.shape[0]))


def window_view(padded: Array, kernel: Size, output: Size, window: Window) -> Array:
    """What each tap reads for each output, without a copy: padded (C, *S, N) -> (C, *K, *P, N)."""
    channel, *space, image = padded.strides
    return xp(padded).lib.stride_tricks.as_strided(
        padded,
        (padded.shape[0], *kernel, *output, padded.shape[-1]),
        (
            channel,
            *(step * d for step, d in zip(space, window.dilation, strict=True)),
            *(step * s for step, s in zip(space, window.stride, strict=True)),
            image,
        ),
    )


class RowChunk(NamedTuple):
    """A chunk of rows along the first output axis: the slice, how many, and how many of them share one matmul."""

    part: slice
    height: int
    lanes: int


class Columns:
    """How to build the columns of x (N, C, *S), padded to (C, *S, N): a matrix (G, B, R, L) for some output rows.

    Overlapping rows: consecutive kernel rows read the same input row, shifted by one output row. So only the K' inner
    taps (all axes but the first, K = K0·K') of each input row are gathered; the columns of an output row are then a
    strided view of K0 consecutive gathers. A matmul computes `lanes` adjacent output rows:
    B = (output rows) / lanes, R = K0·C/G·K', L = lanes·P'·N. A dilation of the first axis interleaves rows. If these
    are short, they are the lanes of one matmul; if they are long, a chunk takes every dilation-th row (lanes = 1).

    Otherwise all taps are gathered, or none where the columns are the input itself: B = 1, R = C/G·K, L = rows·P'·N.

    Instances depend on shapes alone, so `columns_for` caches them. `min_row` is the shortest output row (elements) for
    which rows may overlap.
    """

    def __init__(
        self,
        x_shape: Size,
        w_shape: Size,
        window: Window,
        itemsize: int,
        strided_gemm: bool,
        min_row: int,
    ) -> None:
        (batch, channels, *size), (out_channels, self.in_per_group, *kernel) = x_shape, w_shape
        self.made_chunks: dict[tuple[int, int], list[RowChunk]] = {}
        self.groups, self.kernel_size = window.groups, tuple(kernel)
        self.output = output = window.output(tuple(size), self.kernel_size)
        self.stride, self.dilation = window.stride[0], window.dilation[0]
        self.row = math.prod(output[1:]) * batch  # elements of an output row
        self.itemsize = itemsize
        lanes = self.dilation if self.row < tuning.LANES_MAX_ROW else 1
        saved = (output[0] - self.dilation) * (kernel[0] - self.stride) * self.row
        self.overlap = (
            strided_gemm
            and self.row * lanes >= min_row
            and 1 in (self.stride, self.dilation)
            and saved > tuning.KERNEL_REORDER_COST * (out_channels // self.groups) * kernel[0]
        )
        self.step, self.lanes = (self.dilation, lanes) if self.overlap else (1, 1)
        self.macs = math.prod(w_shape) * output[0] * self.row
        gathered_taps = math.prod(kernel[1:] if self.overlap else kernel)
        self.row_bytes = channels * gathered_taps * self.row * self.lanes * itemsize

        self.window, self.extent = window, window.extent(self.kernel_size)[0]
        self.lead_shape: Size = (self.in_per_group, *(kernel[1:] if self.overlap else kernel))
        self.rank = math.prod(self.lead_shape)
        self.tail_shape: Size = (*output[1:], batch)
        # For each inner tap its position, and along each axis what it reads for which outputs.
        self.inner_taps: list[tuple[Size, Index, Index]] = []
        for position in itertools.product(*map(range, kernel[1:])):
            sides = zip(position, window.dilation[1:], window.padding[1:], strict=True)
            offsets = [k * d - before for k, d, (before, _) in sides]
            pairs = [*map(reads_of_tap, offsets, size[1:], output[1:], window.stride[1:])]
            self.inner_taps.append((position, tuple(read for read, _ in pairs), tuple(place for _, place in pairs)))

    def chunks(self, device: Device) -> list[RowChunk]:
        """All output rows, in chunks for threads; made once for each number of threads."""
        step, lanes, rows = self.step, self.lanes, self.output[0]
        parallel = self.macs >= tuning.PARALLEL_CONV_MACS
        key = (tuning.BLOCK_BYTES * device.chunk_scale, device.worker_count() if parallel else 1)
        if key in self.made_chunks:
            return self.made_chunks[key]
        chunks = []
        for first in range(0, min(step, rows), lanes):
            starts = range(first, rows - lanes + 1, step)
            for part in device.chunks(len(starts), self.row_bytes, parallel):
                chosen = starts[part]
                chunk = slice(chosen.start, chosen.stop, step // lanes)
                chunks.append(RowChunk(chunk, len(chosen) * lanes, lanes))
        if surplus := rows % lanes:
            chunks.append(RowChunk(slice(rows - surplus, None), surplus, surplus))
        self.made_chunks[key] = chunks  # whole: another thread may ask at the same time
        return chunks

    def build(self, padded: Padded, rows: RowChunk) -> Array:
        """The columns (G, B, R, L) of a chunk of output rows."""
        count, length, window = rows.height // rows.lanes, rows.lanes * self.row, self.window
        height = (count - 1) * self.stride + self.kernel_size[0]
        if self.overlap and padded.whole is None and rows.lanes == 1:
            return self._overlapping(self._gather_unpadded(padded.source, rows, height), count, length)
        last = rows.part.start + (count - 1) * self.step + rows.lanes - 1
        source = padded.part((slice(rows.part.start * self.stride, last * self.stride + self.extent),))
        channel, first, *inner, image = source.strides
        group = channel * self.in_per_group
        inner_taps = [step * d for step, d in zip(inner, window.dilation[1:], strict=True)]
        inner_outputs = [step * s for step, s in zip(inner, window.stride[1:], strict=True)]
        as_strided = xp(source).lib.stride_tricks.as_strided
        if not self.overlap:  # (G, C/G, *K, rows, *P', N) -> (G, 1, R, L)
            shape: Size = (self.groups, *self.lead_shape, count, *self.tail_shape)
            taps, outputs = (first * self.dilation, *inner_taps), (first * self.stride, *inner_outputs)
            columns = as_strided(source, shape, (group, channel, *taps, *outputs, image))
            return columns.reshape(self.groups, 1, self.rank, count * length)
        shape = (self.groups, height, *self.lead_shape, rows.lanes, *self.tail_shape)
        strides = (group, first * self.dilation, channel, *inner_taps, first, *inner_outputs, image)
        return self._overlapping(as_strided(source, shape, strides).copy(), count, length)

    def _overlapping(self, gathered: Array, count: int, length: int) -> Array:
        """The columns (G, B, R, L) of gathered rows (G, height, C/G, *K', lanes, *P', N), a view."""
        step, height = length * self.itemsize, gathered.shape[1]
        return xp(gathered).lib.stride_tricks.as_strided(
            gathered,
            (self.groups, count, self.kernel_size[0] * self.rank, length),
            (height * self.rank * step, self.stride * self.rank * step, step, self.itemsize),
        )

    def _gather_unpadded(self, source: Array, rows: RowChunk, height: int) -> Array:
        """The rows of a chunk, (G, height, C/G, *K', *P', N), from x (C, *S, N) without its padding.

        Zeros are written where a tap reads padding. This takes 0.7 of the time of padding the chunk and copying that.
        """
        gathered = xp(source).empty((self.groups, height, *self.lead_shape, *self.tail_shape), source.dtype)
        first = rows.part.start * self.stride - self.window.padding[0][0]
        height_reads, height_places = reads_of_tap(first, source.shape[1], height, self.dilation)
        zero_outside(gathered, 1, height_places)
        source = source.reshape(self.groups, self.in_per_group, *source.shape[1:])[:, :, height_reads].swapaxes(1, 2)
        every = slice(None)
        for position, reads, places in self.inner_taps:
            target = gathered[(every, height_places, every, *position)]  # (G, height, C/G, *P', N)
            for axis, place in enumerate(places, 3):
                zero_outside(target, axis, place)
            target[(every, every, every, *places)] = source[(every, every, every, *reads)]
        return gathered

    def tap_products(self, columns: Array, y: Array) -> Array:
        """The products of overlapping columns (G, B, R, L) with outputs (G, B, O/G, L): (G, K0, K', C/G, O/G)."""
        groups, count, _, length = columns.shape
        blocks = split_count(self.in_per_group * y.shape[2], length)
        columns = columns.reshape(groups, count, self.kernel_size[0], self.in_per_group, -1, blocks, length // blocks)
        y = y.reshape(groups, count, -1, blocks, length // blocks)
        # (B, blocks, G, K0, K', C/G, L), (B, blocks, G, 1, 1, L, O/G)
        columns, y = columns.transpose(1, 5, 0, 2, 4, 3, 6), y.transpose(1, 3, 0, 4, 2)[:, :, :, None, None]
        return device_of(y).matmul(columns, y).sum(axis=(0, 1))

    def kernel_of_taps(self, products: Array) -> Array:
        """The kernel (O, C/G, *K) of products (G, K0, K', C/G, O/G)."""
        w = products.transpose(0, 4, 3, 1, 2)  # (G, O/G, C/G, K0, K')
        return w.reshape(self.groups * w.shape[1], self.in_per_group, *self.kernel_size)

    def kernel_matrix(self, w: Array) -> Array:
        """The kernel (O, C/G, *K) as the matrix (G, 1, O/G, R) that multiplies columns."""
        if self.overlap:
            w = w.swapaxes(1, 2)  # (O, K0, C/G, *K')
        return compact_kernel(w).reshape(self.groups, 1, w.shape[0] // self.groups, math.prod(w.shape[1:]))

    def kernel(self, matrix: Array) -> Array:
        """The kernel (O, C/G, *K) of a matrix (G, O/G, R): the inverse of `kernel_matrix`."""
        out_channels, (height, *inner) = matrix.shape[0] * matrix.shape[1], self.kernel_size
        if self.overlap:
            w = matrix.reshape(out_channels, height, self.in_per_group, *inner).swapaxes(1, 2)
            return compact_kernel(w)
        return xp(matrix).ascontiguousarray(matrix).reshape(out_channels, self.in_per_group, height, *inner)

    def output_matrix(self, y: Array, rows: RowChunk) -> Array:
        """A chunk of rows of an output (O, *P, N) as a view (G, B, O/G, L)."""
        count, length = rows.height // rows.lanes, rows.lanes * self.row
        if not self.overlap:
            count, length = 1, count * length
        block = y[:, rows.part].reshape(self.groups, y.shape[0] // self.groups, count, length)
        return block.swapaxes(1, 2)  # (G, O/G, B, L) -> (G, B, O/G, L)


columns_for = lru_cache(maxsize=1024)(Columns)  # a network asks for the same shapes in every step
