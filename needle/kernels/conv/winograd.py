"""Winograd's minimal filtering: convolution at stride 1 with fewer multiplications.

Along an axis the r·m products of m outputs with a kernel of size r are a trilinear form ⟨y, conv(x, w)⟩ of rank
n = m + r - 1: Σ over n of (A y)·(G w)·(B x). So x is cut into tiles of n elements, for m outputs each, and the sums
over channels become n matrix products instead of r·m. Along several axes the matrices are Kronecker products. The
derivatives of the form use the same matrices,

    y = Aᵀ[(G w)·(B x)]        w = Gᵀ[(A y)·(B x)]

and the derivative in x is the first formula with the kernel flipped. Rounding errors are two to three times as large as
in the plain sum along one axis, up to six times along two axes and fifteen along three. An infinity or NaN in x makes
all outputs of its tiles NaN, and the whole gradient of w.

Sources: Winograd, "Arithmetic Complexity of Computations" (1980), chapter 5; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks" (2016).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, reduce
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import Device, device_of, xp
from needle.kernels.conv.gemm import add_bias, blocked_matmul
from needle.kernels.layout import Array, Padded, batch_first
from needle.kernels.matmul import matmul
from needle.kernels.window import Index, Size, Window, shared_window

TILE_OUTPUTS = 4  # m, along each axis
# Evaluation points of the polynomials besides infinity: fractions of powers of two, with half the error of 0, ±1, ±2.
POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
MAX_KERNEL = len(POINTS) + 2 - TILE_OUTPUTS


def forward(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (N, C, *S), (O, C, *K) -> (N, O, *P)."""
    tiles = Tiles(x, w, window)

    def compute(chunk: Index) -> None:
        tiles.multiply(tiles.of_x(chunk), chunk, bias)

    tiles.device.parallel_for(compute, tiles.chunks())
    return tiles.result()


def backward_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, forward(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C, *K)."""
    tiles = Tiles(x, None, window, kernel)
    source = tiles.padded_outputs(y)

    def term(chunk: Index) -> Array:
        return tiles.of_y(source, chunk) @ tiles.of_x(chunk).swapaxes(1, 2)  # (n, O, L), (n, L, C) -> (n, O, C)

    return tiles.kernel_of(tiles.device.parallel_sum(term, tiles.chunks()))


def forward_and_weight(x: Array, w: Array, window: Window, y: Array) -> tuple[Array, Array]:
    """`forward(x, w)` and `backward_weight(x, y)`, (N, O, *P) and (O, C, *K), with the tiles of x transformed once."""
    tiles = Tiles(x, w, window)
    source = tiles.padded_outputs(y)

    def term(chunk: Index) -> Array:
        x_tiles = tiles.of_x(chunk)
        tiles.multiply(x_tiles, chunk)
        return tiles.device.matmul(tiles.of_y(source, chunk), x_tiles.swapaxes(1, 2))

    kernel = tiles.kernel_of(tiles.device.parallel_sum(term, tiles.chunks()))
    return tiles.result(), kernel


def is_supported(window: Window, w_shape: Size) -> bool:
    """Whether a convolution with kernels (O, C, *K) can be tiled: at stride 1, in one group, with small kernels."""
    return set(window.stride) == {1} and window.groups == 1 and max(w_shape[2:]) <= MAX_KERNEL


def is_faster(x_shape: Size, w_shape: Size, window: Window) -> bool:
    """Whether tiles are faster than im2col for x (N, C, *S) and kernels (O, C, *K): with many channels or axes."""
    if not is_supported(window, w_shape):
        return False
    out_channels, channels, *kernel = w_shape
    output = window.output(x_shape[2:], tuple(kernel))
    macs = math.prod(w_shape) * math.prod(output) * x_shape[0]
    tiles = math.prod(tile_counts(output, window.dilation)) * math.prod(window.dilation) * x_shape[0]
    products = tuning.WINOGRAD_PRODUCT_COST * channels * out_channels
    transforms = tuning.WINOGRAD_TRANSFORM_COST * (channels + out_channels)
    cost = math.prod(TILE_OUTPUTS + k - 1 for k in kernel) * (products + transforms) * tiles
    return min(kernel) > 1 and macs >= tuning.WINOGRAD_MIN_MACS and cost < tuning.WINOGRAD_MAX_COST * macs


class Tiles:
    """The tiles of a convolution at stride 1 of x (N, C, *S) with kernels of sizes K, and the matrices A, G and B.

    With a dilation d, the outputs d apart belong together, so there are T·d tiles of TILE_OUTPUTS outputs along each
    axis. A chunk of tiles is a slice of T for each axis. A and B apply along one axis after the other.
    """

    def __init__(self, x: Array, w: Array | None, window: Window, kernel: Size = ()) -> None:
        self.device, self.kernel, self.dilation = device_of(x), kernel if w is None else w.shape[2:], window.dilation
        self.output = window.output(x.shape[2:], self.kernel)
        self.count = tile_counts(self.output, self.dilation)
        # The outputs that the tiles cover: at least all of them.
        self.covered = tuple(TILE_OUTPUTS * d * t for d, t in zip(self.dilation, self.count, strict=True))
        sides = zip(window.padding, self.covered, self.output, strict=True)
        pairs = tuple((before, after + n - p) for (before, after), n, p in sides)
        self.x, self.channels, self.batch = Padded(x, replace(window, padding=pairs)), x.shape[1], x.shape[0]
        # A (n, m) and B (n, n) for each axis, G (n, K) for all axes together.
        self.a, self.g, self.b = matrices(self.kernel, x.dtype, self.device)
        if w is not None:
            weights = matmul(self.g, w.reshape(w.shape[0] * w.shape[1], math.prod(self.kernel)).T)  # (n, O·C)
            self.weights = weights.reshape(self.g.shape[0], 1, *w.shape[:2])  # (n, 1, O, C)
            self.y = self.device.xp.empty((w.shape[0], *self.covered, x.shape[0]), x.dtype)  # (O, *T·m·d, N)

    def chunks(self) -> list[Index]:
        """All tiles, in chunks for threads."""
        tile_bytes = self.g.shape[0] * self.channels * math.prod(self.dilation) * self.batch * self.g.itemsize
        most = max(
            -(-tuning.WINOGRAD_MIN_COLUMNS // max(1, math.prod(self.dilation) * self.batch)),
            tuning.WINOGRAD_TILE_BYTES * self.device.chunk_scale // max(1, tile_bytes),
        )
        most = min(most, -(-math.prod(self.count) // self.device.worker_count()))
        cuts: list[list[slice]] = []
        for t in reversed(self.count):
            parts = -(-t // most)
            cuts.insert(0, [slice(t * i // parts, t * (i + 1) // parts) for i in range(parts)])
            most = max(1, most // t)
        return list(itertools.product(*cuts))

    def of_x(self, chunk: Index) -> Array:
        """B x of some tiles: (n, C, L), where L counts tiles and images.

        A copy cuts the tiles along the last axis. Along the others they are rows of that, which need not be copied.
        """
        cut = self._cut_last_axis(chunk)  # (q, *S', C, T, d, N)
        done, *sizes, channels = cut.shape[: len(chunk) + 1]
        length, tiles = math.prod(cut.shape[-3:]), self.apply(self.b[-1:], cut)
        del cut  # its memory is still in the cache, for what comes next
        for matrix, part, d in list(zip(self.b, chunk, self.dilation, strict=True))[-2::-1]:
            tiles = tiles.reshape(done, math.prod(sizes[:-1]), sizes.pop(), channels, length)
            tiles = self._along_rows(matrix, tiles, part.stop - part.start, d)
            done, length = done * matrix.shape[0], length * (part.stop - part.start) * d
        return tiles.reshape(done, channels, length)

    def of_y(self, y: Padded, chunk: Index) -> Array:
        """A y of some tiles of `padded_outputs`: (n, O, L)."""
        tiles = self._by_tiles(y.part(self._places(chunk)), chunk)
        channels, *others = tiles.shape[len(chunk) :]
        return self.apply(self.a, tiles).reshape(self.g.shape[0], channels, math.prod(others))

    def multiply(self, x_tiles: Array, chunk: Index, bias: Array | None = None) -> None:
        """Write Aᵀ[(G w)·(B x)] and a bias (O,) to the outputs of some tiles; `x_tiles` (n, C, L) is B x."""
        products = self.device.xp.empty((*self.weights.shape[:3], x_tiles.shape[2]), x_tiles.dtype)  # (n, 1, O, L)
        blocked_matmul(self.device, self.weights, x_tiles[:, None], products)
        target = self._by_tiles(self.y[(slice(None), *self._places(chunk))], chunk)
        outputs = self.apply([a.T for a in self.a], products).reshape(target.shape)
        add_bias(outputs.swapaxes(0, len(chunk)), bias)
        target[...] = outputs

    def result(self) -> Array:
        """The outputs (N, O, *P) that `multiply` has written."""
        return batch_first(self.y[(slice(None), *(slice(p) for p in self.output))])

    def padded_outputs(self, y: Array) -> Padded:
        """y (N, O, *P) with zeros up to all outputs that tiles cover."""
        surplus = tuple((0, n - p) for n, p in zip(self.covered, self.output, strict=True))
        ones = (1,) * len(surplus)
        return Padded(y, shared_window(ones, surplus, ones))

    def kernel_of(self, products: Array) -> Array:
        """Gᵀ of the sums over tiles (n, O, C): the gradient (O, C, *K)."""
        w = matmul(self.g.T, products.reshape(products.shape[0], -1))  # (K, O·C)
        return xp(w).ascontiguousarray(w.T).reshape(*products.shape[1:], *self.kernel)

    def apply(self, matrices: Sequence[Array], x: Array) -> Array:
        """Apply a matrix (n, q) along each of the first axes of x (*q, …), in C order: (*n, …), to be reshaped."""
        count = 1
        for matrix in matrices:
            x = x.reshape(count, 1, matrix.shape[1], -1)
            y = self.device.xp.empty((count, 1, matrix.shape[0], x.shape[3]), x.dtype)
            blocked_matmul(self.device, matrix[None, None], x, y)
            x, count = y, count * matrix.shape[0]
        return x

    def _places(self, chunk: Index) -> Index:
        """The outputs of some tiles."""
        return tuple(
            slice(t.start * TILE_OUTPUTS * d, t.stop * TILE_OUTPUTS * d)
            for t, d in zip(chunk, self.dilation, strict=True)
        )

    def _by_tiles(self, outputs: Array, chunk: Index) -> Array:
        """The outputs (O, *S, N) of some tiles as a view (*m, O, T, d, T, d, …, N)."""
        parts = [(t.stop - t.start, TILE_OUTPUTS, d) for t, d in zip(chunk, self.dilation, strict=True)]
        split = outputs.reshape(outputs.shape[0], *itertools.chain(*parts), outputs.shape[-1])
        within = range(2, split.ndim, 3)
        return split.transpose(*within, *(axis for axis in range(split.ndim) if axis not in within))

    def _cut_last_axis(self, chunk: Index) -> Array:
        """What some tiles read, cut along the last axis: (q, *S', C, T, d, N), where S' are the other axes."""
        sides = zip(chunk, self.dilation, self.kernel, strict=True)
        box = [slice(t.start * TILE_OUTPUTS * d, (t.stop * TILE_OUTPUTS + k - 1) * d) for t, d, k in sides]
        part, count, d = self.x.part(box), chunk[-1].stop - chunk[-1].start, self.dilation[-1]  # (C, *S', S, N)
        channel, *others, step, image = part.strides
        cut = xp(part).lib.stride_tricks.as_strided(
            part,
            (TILE_OUTPUTS + self.kernel[-1] - 1, *part.shape[1:-2], self.channels, count, d, self.batch),
            (step * d, *others, channel, step * d * TILE_OUTPUTS, step, image),
        )
        return cut.copy()

    def _along_rows(self, matrix: Array, x: Array, count: int, d: int) -> Array:
        """Apply B (n, n) to `count`·d tiles of n rows: (A, P, S, C, L) -> (n, A, P, C, count·d·L)."""
        n, (before, others, _, channels, length) = matrix.shape[0], x.shape
        y = self.device.xp.empty((n, before, others, channels, count, d, length), x.dtype)
        if count * d == 1:
            y_rows = y.reshape(n, before, others, channels * length).transpose(1, 2, 0, 3)
            blocked_matmul(self.device, matrix[None, None], x.reshape(before, others, n, y_rows.shape[3]), y_rows)
        else:
            a, p, s, c, item = x.strides
            tiles = xp(x).lib.stride_tricks.as_strided(
                x,
                (before, others, channels, count, d, n, length),
                (a, p, c, TILE_OUTPUTS * d * s, s, d * s, item),
            )
            self.device.matmul(matrix, tiles, out=y.transpose(1, 2, 3, 4, 5, 0, 6))
        return y


def tile_counts(output: Size, dilation: Size) -> Size:
    """T along each axis: how many times `dilation` tiles cover the outputs."""
    return tuple(-(-p // (TILE_OUTPUTS * d)) for p, d in zip(output, dilation, strict=True))


@cache
def matrices(kernel: Size, dtype: Any, device: Device) -> tuple[Any, Array, Any]:
    """A for each axis of a kernel, G for all axes together, and B for each axis, as arrays of a device."""
    a, g, b = zip(*(transforms(TILE_OUTPUTS, k) for k in kernel), strict=True)
    on_device = [device.asarray(factor.astype(dtype)) for factor in (*a, reduce(np.kron, g), *b)]
    return on_device[: len(a)], on_device[len(a)], on_device[len(a) + 1 :]


def transforms(m: int, r: int) -> tuple[Any, Any, Any]:
    """A (n, m), G (n, r) and B (n, n) for m outputs of a kernel of size r along one axis, by Toom and Cook."""
    points = POINTS[: m + r - 2]
    others = [[q for q in points if q != p] for p in points]
    a = np.vander([*points, 0.0], m, increasing=True)
    g = np.vander([*points, 0.0], r, increasing=True)
    g[:-1] /= [[math.prod(p - q for q in roots)] for p, roots in zip(points, others, strict=True)]
    a[-1], g[-1] = np.eye(m)[-1], np.eye(r)[-1]  # at infinity
    b = [np.append(np.poly(roots)[::-1], 0) for roots in others] + [np.poly(points)[::-1]]
    return a, g, np.array(b)
