"""Convolution without columns: a 1x1 product for each position of the kernel, which reads the input where it lies."""

from __future__ import annotations

import math

from needle.backend import device_of, xp
from needle.kernels.conv.col2im import by_group, product
from needle.kernels.conv.im2col import add_bias, cut
from needle.kernels.layout import Array, batch_first, batch_last, padded, taps
from needle.kernels.window import Size, Window

CHUNK_BYTES = 1 << 18  # of an accumulator at a time on the CPU: it is read and written once per kernel position


def correlate_by_taps(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate, and add a bias (O,), by products accumulated: (N, C, *S), (O, C/G, *K) -> (N, O, *P).

    At stride 1, for an output as wide as the padded input, what a position meets is one stretch of that input, shifted:
    the product takes it as it lies, without any columns, and the surplus is cut off in the end.
    """
    kernel, whole = w.shape[2:], padded(x, window)
    output = window.output(x.shape[2:], kernel)
    matrices = w.reshape(window.groups, w.shape[0] // window.groups, w.shape[1], *kernel)
    if set(window.stride) == {1}:
        y = _shifted_products(whole, matrices, kernel, output, window)
    else:
        sums = xp(x).zeros((window.groups, matrices.shape[1], math.prod(output) * x.shape[0]), x.dtype)
        for position, met in taps(window, kernel, output):
            sums += product(matrices[(..., *position)], by_group(whole[met], window))
        y = sums.reshape(w.shape[0], *output, x.shape[0])
    add_bias(y, bias)
    return batch_first(y)


def _shifted_products(whole: Array, matrices: Array, kernel: Size, output: Size, window: Window) -> Array:
    """The convolution at stride 1 of a padded (C, *S, N) with matrices (G, O/G, C/G, *K): (O, *P, N)."""
    flat = by_group(whole, window)
    steps = [math.prod(whole.shape[axis + 2 :]) for axis in range(len(kernel))]
    shifts = {
        position: sum(k * d * step for k, d, step in zip(position, window.dilation, steps, strict=True))
        for position, _ in taps(window, kernel, output)
    }
    groups, outs = matrices.shape[:2]
    wide = xp(whole).empty((groups, outs, flat.shape[2]), whole.dtype)
    length = flat.shape[2] - max(shifts.values())
    chunk = max(1, CHUNK_BYTES * device_of(whole).chunk_scale // max(1, groups * outs * whole.itemsize))
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        block = wide[:, :, start:stop]
        for i, (position, shift) in enumerate(shifts.items()):
            met = product(matrices[(..., *position)], flat[:, :, start + shift : stop + shift])
            if i:
                block += met
            else:
                block[...] = met
    wide = wide.reshape(groups * outs, *whole.shape[1:])
    return xp(whole).ascontiguousarray(wide[(slice(None), *(slice(n) for n in output))])


def weight_by_taps(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K).

    At stride 1 along the last axis what a position of the kernel meets in a row of the output is a stretch of x: a
    batch of products takes them as they lie.
    """
    whole, y = padded(x, window), xp(y).ascontiguousarray(batch_last(y))
    if window.stride[-1] == 1:
        return _products_of_stretches(whole, y, window, kernel)
    w = xp(x).empty((y.shape[0], x.shape[1] // window.groups, *kernel), x.dtype)
    target = by_group(y, window)
    for position, met in taps(window, kernel, y.shape[1:-1]):
        found = target @ by_group(whole[met], window).swapaxes(1, 2)
        w[(..., *position)] = found.reshape(w.shape[:2])
    return w


def _products_of_stretches(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The weight gradient of a padded x (C, *S, N) and y (O, *P, N), by stretches short enough for small products."""
    groups, share, outs, output = window.groups, x.shape[0] // window.groups, y.shape[0] // window.groups, y.shape[1:-1]
    row, item, rank = output[-1] * x.shape[-1], x.itemsize, len(kernel)
    cuts = cut(share * outs, row)
    length, lead = row // cuts, (*output[:-1], cuts)
    (channel, *space, _), (out, *rows, _) = x.strides, y.strides
    moved = [step * s for step, s in zip(space[:-1], window.stride, strict=False)]
    met = [step * d for step, d in zip(space, window.dilation, strict=True)]
    stretches = xp(x).lib.stride_tricks.as_strided(
        x,
        (*lead, groups, *kernel, share, length),
        (*moved, length * item, channel * share, *met, channel, item),
    )
    targets = xp(x).lib.stride_tricks.as_strided(
        y,
        (*lead, groups, *(1,) * rank, length, outs),
        (*rows[:-1], length * item, out * outs, *(0,) * rank, item, out),
    )
    axis = max(range(rank), key=lead.__getitem__)

    def term(part: slice) -> Array:
        chosen = (*(slice(None),) * axis, part)
        return (stretches[chosen] @ targets[chosen]).sum(axis=tuple(range(rank)))

    size = math.prod(lead) // lead[axis] * y.shape[0] * share * math.prod(kernel) * item
    w = device_of(x).parallel_sum(term, device_of(x).chunks(lead[axis], size, True))  # (G, *K, C/G, O/G)
    w = w.transpose((0, rank + 2, rank + 1, *range(1, rank + 1)))
    return xp(w).ascontiguousarray(w).reshape(y.shape[0], share, *kernel)
