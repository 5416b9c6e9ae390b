"""Other ways to the same products: by a tensor contraction, and both gradients as convolutions.

Each equals its sisters in `convolution.ALGORITHMS` to rounding, for every stride, padding, dilation and number of
groups.
"""

from __future__ import annotations

from needle.backend import xp
from needle.kernels.conv import col2im, im2col
from needle.kernels.layout import Array, batch_first, batch_last, padded, swapped
from needle.kernels.window import Size, Window


def correlate_by_contraction(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate, and add a bias (O,), by one view of all windows in (N, *S, C) order and a tensor contraction.

    (N, C, *S), (O, C/G, *K) -> (N, O, *P). The contraction holds the whole matrix of columns.
    """
    kernel, rank = w.shape[2:], w.ndim - 2
    output = window.output(x.shape[2:], kernel)
    whole = xp(x).ascontiguousarray(batch_first(padded(x, window)).swapaxes(1, -1)).swapaxes(1, -1)
    windows = col2im.window_view(batch_last(whole), kernel, output, window)
    share, outs = w.shape[1], w.shape[0] // window.groups
    parts = [
        xp(x).tensordot(
            windows[group * share : (group + 1) * share],
            w[group * outs : (group + 1) * outs],
            (tuple(range(rank + 1)), tuple(range(1, rank + 2))),
        )
        for group in range(window.groups)
    ]
    y = xp(x).concatenate(parts, -1)  # (*P, N, O)
    im2col.add_bias(y.swapaxes(0, -1), bias)
    return y.transpose((rank, rank + 1, *range(rank)))


def transpose_by_convolution(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The input gradient as a convolution: y dilated by the stride, w flipped and its channels swapped.

    (N, O, *P), (O, C/G, *K) -> (N, C, *S). x[i] = Σ y[p]·w[k] over stride·p + dilation·k = i + padding, which reads the
    dilated y at i + padding - dilation·k: a convolution at stride 1 with the kernel from back to front.
    """
    rank, groups = len(size), window.groups
    reach = [e - 1 for e in window.extent(w.shape[2:])]
    spread = xp(y).zeros((y.shape[1], *(n + r for n, r in zip(size, reach, strict=True)), y.shape[0]), y.dtype)
    target, source = [slice(None)], [slice(None)]
    for n, r, s, p, (before, _) in zip(size, reach, window.stride, y.shape[2:], window.padding, strict=True):
        first = max(0, -((r - before) // s))  # outputs further out than the kernel reaches meet padding only
        last = min(p, (n + before - 1) // s + 1)
        start = r - before + s * first
        target.append(slice(start, start + s * (last - first), s) if last > first else slice(0))
        source.append(slice(first, max(first, last)))
    spread[tuple(target)] = batch_last(y)[tuple(source)]
    kernel = xp(w).flip(swapped(w, groups), tuple(range(2, w.ndim)))
    dense = Window((1,) * rank, ((0, 0),) * rank, window.dilation, groups)
    return im2col.correlate(batch_first(spread), kernel, dense)


def weight_by_convolution(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The weight gradient as a convolution of the transposed pair, stride and dilation exchanged, cut to the kernel.

    (N, C, *S), (N, O, *P) -> (O, C/G, *K): channels take the place of the batch, the batch that of the channels.
    """
    groups, batch, share, size = window.groups, x.shape[0], x.shape[1] // window.groups, x.shape[2:]
    inputs = x.reshape(batch, groups, share, *size).swapaxes(0, 2).reshape(share, groups * batch, *size)
    kernels = y.swapaxes(0, 1)
    exchanged = Window(window.dilation, window.padding, window.stride, groups)
    w = im2col.correlate(inputs, kernels, exchanged).swapaxes(0, 1)
    return w[(slice(None), slice(None), *(slice(k) for k in kernel))]
