"""Convolution without columns: one 1x1 convolution per tap, which reads the input in place; also known as kn2row.

Source: Vasudevan, Anderson and Gregg, "Parallel Multi Channel Convolution using General Matrix Multiplication" (2017).
"""

from __future__ import annotations

import math
from typing import Any

from needle import tuning
from needle.backend import device_of, xp
from needle.kernels.conv.gemm import add_bias, by_group, grouped_matmul, split_count
from needle.kernels.layout import Array, batch_first, batch_last, pad_to_batch_last
from needle.kernels.window import Size, Window, at, tap_slices


def forward(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P).

    At stride 1, computed for outputs as wide as the padded input, each tap reads one contiguous stretch of it, shifted.
    The product takes that stretch in place, and the surplus outputs are cut off at the end.
    """
    kernel, padded = w.shape[2:], pad_to_batch_last(x, window)  # (C, *S, N)
    output, groups = window.output(x.shape[2:], kernel), window.groups
    matrices = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)  # (G, O/G, C/G, *K)
    if set(window.stride) == {1}:
        y = _forward_by_shifts(padded, matrices, kernel, output, window)
    else:

        def product(tap: tuple[Any, Any]) -> Array:
            position, index = tap
            return grouped_matmul(matrices[(..., *position)], by_group(padded[index], groups))  # (G, O/G, P·N)

        total = device_of(x).parallel_sum(product, list(tap_slices(window, kernel, output)))
        y = total.reshape(w.shape[0], *output, x.shape[0])  # (O, *P, N)
    add_bias(y, bias)
    return batch_first(y)


def _forward_by_shifts(padded: Array, matrices: Array, kernel: Size, output: Size, window: Window) -> Array:
    """Convolve at stride 1: padded (C, *S, N), matrices (G, O/G, C/G, *K) -> (O, *P, N)."""
    flat = by_group(padded, window.groups)  # (G, C/G, S·N)
    steps = [math.prod(padded.shape[axis + 2 :]) for axis in range(len(kernel))]
    shifts = {
        position: sum(k * d * step for k, d, step in zip(position, window.dilation, steps, strict=True))
        for position, _ in tap_slices(window, kernel, output)
    }
    groups, out_per_group = matrices.shape[:2]
    wide = xp(padded).empty((groups, out_per_group, flat.shape[2]), padded.dtype)  # (G, O/G, S·N)
    length = flat.shape[2] - max(shifts.values())
    column_bytes = groups * out_per_group * padded.itemsize
    step = max(1, tuning.TAPS_ACCUMULATOR_BYTES * device_of(padded).chunk_scale // max(1, column_bytes))

    def compute(start: int) -> None:
        stop = min(start + step, length)
        block = wide[:, :, start:stop]
        for i, (position, shift) in enumerate(shifts.items()):
            term = grouped_matmul(matrices[(..., *position)], flat[:, :, start + shift : stop + shift])
            if i:
                block += term
            else:
                block[...] = term

    device_of(padded).parallel_for(compute, range(0, length, step))
    wide = wide.reshape(groups * out_per_group, *padded.shape[1:])  # (O, *S, N)
    return xp(padded).ascontiguousarray(wide[(slice(None), *(slice(n) for n in output))])


def backward_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, forward(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K).

    At stride 1 along the last axis, a tap reads one contiguous stretch of x for each output row: a batch of products
    takes these stretches in place.
    """
    padded, y = pad_to_batch_last(x, window), xp(y).ascontiguousarray(batch_last(y))  # (C, *S, N), (O, *P, N)
    if window.stride[-1] == 1:
        return _backward_weight_by_stretches(padded, y, window, kernel)
    w = xp(x).empty((y.shape[0], x.shape[1] // window.groups, *kernel), x.dtype)
    target = by_group(y, window.groups)  # (G, O/G, P·N)

    def compute(tap: tuple[Any, Any]) -> None:
        position, index = tap
        product = target @ by_group(padded[index], window.groups).swapaxes(1, 2)  # (G, O/G, C/G)
        w[(..., *position)] = product.reshape(w.shape[:2])

    device_of(x).parallel_for(compute, tap_slices(window, kernel, y.shape[1:-1]))
    return w


def _backward_weight_by_stretches(padded: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The weight gradient of padded (C, *S, N) and y (O, *P, N), by stretches short enough for small products."""
    groups, output, rank, item = window.groups, y.shape[1:-1], len(kernel), padded.itemsize
    in_per_group, out_per_group = padded.shape[0] // groups, y.shape[0] // groups
    row = output[-1] * padded.shape[-1]  # elements of an output row
    blocks = split_count(in_per_group * out_per_group, row)
    length, lead = row // blocks, (*output[:-1], blocks)
    (channel, *space, _), (out_channel, *rows, _) = padded.strides, y.strides
    tap_steps = [step * d for step, d in zip(space, window.dilation, strict=True)]
    output_steps = [step * s for step, s in zip(space[:-1], window.stride, strict=False)]
    as_strided = xp(padded).lib.stride_tricks.as_strided
    stretches = as_strided(  # (*P[:-1], blocks, G, *K, C/G, L)
        padded,
        (*lead, groups, *kernel, in_per_group, length),
        (*output_steps, length * item, channel * in_per_group, *tap_steps, channel, item),
    )
    targets = as_strided(  # (*P[:-1], blocks, G, *1, L, O/G)
        y,
        (*lead, groups, *(1,) * rank, length, out_per_group),
        (*rows[:-1], length * item, out_channel * out_per_group, *(0,) * rank, item, out_channel),
    )
    axis = max(range(rank), key=lead.__getitem__)  # threads share the longest

    def term(chunk: slice) -> Array:
        index = at(axis, chunk)
        return (stretches[index] @ targets[index]).sum(axis=tuple(range(rank)))  # (G, *K, C/G, O/G)

    row_bytes = math.prod(lead) // lead[axis] * y.shape[0] * in_per_group * math.prod(kernel) * item
    device = device_of(padded)
    w = device.parallel_sum(term, device.chunks(lead[axis], row_bytes, True))
    w = w.transpose((0, rank + 2, rank + 1, *range(1, rank + 1)))  # (G, O/G, C/G, *K)
    return xp(w).ascontiguousarray(w).reshape(y.shape[0], in_per_group, *kernel)
