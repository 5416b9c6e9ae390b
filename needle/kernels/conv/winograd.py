"""Convolution with fewer multiplications: Winograd's minimal filtering, at stride 1.

Along an axis the r·m products of m outputs with a kernel of size r are a trilinear form ⟨y, conv(x, w)⟩ of rank
n = m + r - 1: Σ over n of (A y)·(G w)·(B x). So x is cut into tiles of n elements, m outputs each, and the sums over
channels are n matrix products instead of r·m. Along several axes the matrices are Kronecker products. The form's
derivatives are made of the same matrices,

    y = Aᵀ[(G w)·(B x)]        w = Gᵀ[(A y)·(B x)]

and the one in x is the first, with the kernel flipped. Rounding errors are two to three times those of the plain sum
along one axis, up to six times along two and fifteen along three. An infinity or NaN in x makes all outputs of its
tiles NaN, and all of the gradient of w.

Sources: Winograd, "Arithmetic Complexity of Computations" (1980), chapter 5; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks" (2016).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache, lru_cache, reduce
from typing import Any

import numpy as np

from needle.backend import device_of, xp
from needle.kernels.conv.im2col import add_bias, multiply
from needle.kernels.layout import Array, batch_first, padded
from needle.kernels.matmul import matmul
from needle.kernels.window import Size, Window

OUTPUTS = 4  # of a tile along each axis
# Where the polynomials are evaluated, beside infinity: fractions of powers of two, with half the error of 0, ±1, ±2.
POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
LARGEST = len(POINTS) + 2 - OUTPUTS  # kernel size
TILE_BYTES = 1 << 20  # of tiles of x that one thread works on at a time
WORTHWHILE = 1 << 24  # multiplications of the plain sum from which on the calls are worth it
TRANSFORMATION = 1.7  # time of a multiplication with A or B, in those of the products


class Tiles:
    """The tiles of a convolution at stride 1 of (N, C, *S) with kernels of sizes K, and the matrices between them.

    With a dilation d the outputs d apart belong together; so along each axis there are T·d tiles of OUTPUTS outputs.
    """

    def __init__(self, x: Array, kernel: Size, window: Window) -> None:
        self.kernel, self.dilation = kernel, window.dilation
        self.output = window.output(x.shape[2:], kernel)
        self.count = counts(self.output, self.dilation)
        self.whole = tuple(OUTPUTS * d * t for d, t in zip(self.dilation, self.count, strict=True))  # outputs
        sides = zip(window.padding, self.whole, self.output, strict=True)
        pairs = tuple((before, after + n - p) for (before, after), n, p in sides)
        self.x = padded(x, replace(window, padding=pairs))
        self.a, self.g, self.b = matrices(kernel, x.dtype, xp(x))

    def pieces(self) -> list[tuple[slice, ...]]:
        """Stretches of tiles along each axis, as pieces for threads."""
        tile = self.b.shape[0] * self.x.shape[0] * math.prod(self.dilation) * self.x.shape[-1] * self.x.itemsize
        device = device_of(self.x)
        most = max(1, TILE_BYTES * device.chunk_scale // max(1, tile))
        most = min(most, -(-math.prod(self.count) // device.worker_count()))
        cuts: list[list[slice]] = []
        for t in reversed(self.count):
            parts = -(-t // most)
            cuts.insert(0, [slice(t * i // parts, t * (i + 1) // parts) for i in range(parts)])
            most = max(1, most // t)
        return list(itertools.product(*cuts))

    def of_x(self, tiles: tuple[slice, ...]) -> Array:
        """B x of some tiles: (n, C, L), where L counts tiles and images."""
        return self._transformed(self.b, self._cut(self.x, tiles, [OUTPUTS + k - 1 for k in self.kernel]))

    def of_y(self, y: Array, tiles: tuple[slice, ...]) -> Array:
        """A y of some tiles of (O, *whole, N): (n, O, L)."""
        return self._transformed(self.a, self.outputs(y, tiles))

    def outputs(self, y: Array, tiles: tuple[slice, ...]) -> Array:
        """Some tiles of (O, *whole, N) as a view (*m, O, *T, N) whose axes T hold the dilation too."""
        return self._cut(y, tiles, [OUTPUTS] * len(tiles))

    def _cut(self, array: Array, tiles: tuple[slice, ...], elements: list[int]) -> Array:
        """Some tiles of (C, *S, N) as a view (*elements, C, T, d, T, d, …, N)."""
        starts = (slice(t.start * OUTPUTS * d, None) for t, d in zip(tiles, self.dilation, strict=True))
        array = array[(slice(None), *starts)]
        channel, *space, image = array.strides
        numbers, steps = [], []
        for t, d, step in zip(tiles, self.dilation, space, strict=True):
            numbers += [t.stop - t.start, d]
            steps += [step * d * OUTPUTS, step]
        within = [step * d for step, d in zip(space, self.dilation, strict=True)]
        return xp(array).lib.stride_tricks.as_strided(
            array, (*elements, array.shape[0], *numbers, array.shape[-1]), (*within, channel, *steps, image)
        )

    def _transformed(self, matrix: Array, tiles: Array) -> Array:
        """(n, q) by tiles (*q, C, …): (n, C, L)."""
        channels, *places = tiles.shape[len(self.kernel) :]
        flat = tiles.reshape(matrix.shape[1], -1)
        return apply(matrix, flat).reshape(matrix.shape[0], channels, math.prod(places))


def counts(output: Size, dilation: Size) -> Size:
    """T along each axis: how many times `dilation` tiles cover the outputs."""
    return tuple(-(-p // (OUTPUTS * d)) for p, d in zip(output, dilation, strict=True))


def correlate(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate, and add a bias (O,): (N, C, *S), (O, C, *K) -> (N, O, *P)."""
    tiles, outs = Tiles(x, w.shape[2:], window), w.shape[0]
    weights = matmul(tiles.g, w.reshape(outs * w.shape[1], math.prod(w.shape[2:])).T)
    weights = weights.reshape(tiles.b.shape[0], 1, *w.shape[:2])
    y = xp(x).empty((outs, *tiles.whole, x.shape[0]), x.dtype)

    def work(piece: tuple[slice, ...]) -> None:
        met = tiles.of_x(piece)
        products = xp(x).empty((met.shape[0], outs, met.shape[2]), x.dtype)
        multiply(weights, met[:, None], products[:, None])
        target = tiles.outputs(y, piece)
        found = apply(tiles.a.T, products.reshape(met.shape[0], -1)).reshape(target.shape)
        add_bias(found.swapaxes(0, len(piece)), bias)
        target[...] = found

    device_of(x).parallel_for(work, tiles.pieces())
    return batch_first(y[(slice(None), *(slice(p) for p in tiles.output))])


def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C, *K)."""
    tiles, channels, outs = Tiles(x, kernel, window), x.shape[1], y.shape[1]
    beyond = tuple((0, n - p) for n, p in zip(tiles.whole, tiles.output, strict=True))
    source = padded(y, replace(window, padding=beyond))

    def term(piece: tuple[slice, ...]) -> Array:
        return tiles.of_y(source, piece) @ tiles.of_x(piece).swapaxes(1, 2)

    total = device_of(x).parallel_sum(term, tiles.pieces())
    w = matmul(tiles.g.T, total.reshape(tiles.b.shape[0], outs * channels))
    return xp(w).ascontiguousarray(w.T).reshape(outs, channels, *kernel)


def fits(window: Window, w_shape: Size) -> bool:
    """Whether a convolution with kernels (O, C, *K) has tiles: at stride 1, in one group, with small kernels."""
    return set(window.stride) == {1} and window.groups == 1 and max(w_shape[2:]) <= LARGEST


def pays(x: Array, w_shape: Size, window: Window) -> bool:
    """Whether tiles are faster than columns for x (N, C, *S) and kernels (O, C, *K): with many channels, up to twice.

    float64 keeps the plain sum, which is more exact. The cost of the transformations is a fit to measurements.
    """
    return (
        x.dtype == "float32"
        and device_of(x).strided_gemm
        and fits(window, w_shape)
        and _saves(x.shape, w_shape, window)
    )


@lru_cache(maxsize=4096)
def _saves(x_shape: Size, w_shape: Size, window: Window) -> bool:
    outs, channels, *kernel = w_shape
    output = window.output(x_shape[2:], tuple(kernel))
    plain = math.prod(w_shape) * math.prod(output) * x_shape[0]
    m, n = OUTPUTS ** len(kernel), math.prod(OUTPUTS + k - 1 for k in kernel)
    tiles = math.prod(counts(output, window.dilation)) * math.prod(window.dilation)
    cost = n * (channels * outs + TRANSFORMATION * (n * channels + m * outs)) * tiles * x_shape[0]
    return min(kernel) > 1 and plain >= WORTHWHILE and cost < 0.85 * plain


def apply(matrix: Array, x: Array) -> Array:
    """(p, q), (q, L) -> (p, L), by stretches of L."""
    y = xp(x).empty((matrix.shape[0], x.shape[1]), x.dtype)
    multiply(matrix[None, None], x[None, None], y[None, None])
    return y


@cache
def matrices(kernel: Size, dtype: Any, namespace: Any) -> tuple[Array, Array, Array]:
    """A, G and B for all axes of a kernel, as arrays of a device."""
    axes = zip(*(transforms(OUTPUTS, k) for k in kernel), strict=True)
    return tuple(namespace.asarray(reduce(np.kron, along).astype(dtype)) for along in axes)


def transforms(m: int, r: int) -> tuple[Any, Any, Any]:
    """A (n, m), G (n, r) and B (n, n) for m outputs of a kernel of size r along one axis, by Toom and Cook."""
    points = POINTS[: m + r - 2]
    rest = [[q for q in points if q != p] for p in points]
    a = np.vander([*points, 0.0], m, increasing=True)
    g = np.vander([*points, 0.0], r, increasing=True)
    g[:-1] /= [[math.prod(p - q for q in others)] for p, others in zip(points, rest, strict=True)]
    a[-1], g[-1] = np.eye(m)[-1], np.eye(r)[-1]  # at infinity
    b = [np.append(np.poly(others)[::-1], 0) for others in rest] + [np.poly(points)[::-1]]
    return a, g, np.array(b)
