"""Reference algorithms: a tensordot over all windows, and both gradients as convolutions.

They are never chosen by shape. Each equals the other algorithms to rounding, for every stride, padding, dilation and
number of groups, and is short enough to be checked against the formulas of docs/convolution.md.
"""

from __future__ import annotations

from needle.backend import device_of, xp
from needle.kernels.conv import im2col
from needle.kernels.conv.gemm import add_bias
from needle.kernels.conv.polyphase import flip_taps, swap_channels
from needle.kernels.layout import Array, batch_first, batch_last, pad_to_batch_last
from needle.kernels.window import Size, Window


def forward(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P).

    One view of all windows, in (N, *S, C) memory order, and one tensordot per group, which copies all columns.
    """
    kernel, rank = w.shape[2:], w.ndim - 2
    output = window.output(x.shape[2:], kernel)
    padded = batch_first(pad_to_batch_last(x, window)).swapaxes(1, -1)  # (N, *S, C) but for the order within *S
    padded = xp(x).ascontiguousarray(padded).swapaxes(1, -1)  # (N, C, *S)
    windows = im2col.window_view(batch_last(padded), kernel, output, window)  # (C, *K, *P, N)
    in_per_group, out_per_group = w.shape[1], w.shape[0] // window.groups
    y = xp(x).empty((*output, x.shape[0], w.shape[0]), x.dtype)  # (*P, N, O)

    def compute(group: int) -> None:
        ins, outs = (slice(group * n, (group + 1) * n) for n in (in_per_group, out_per_group))
        axes = tuple(range(rank + 1)), tuple(range(1, rank + 2))
        y[..., outs] = xp(x).tensordot(windows[ins], w[outs], axes)  # (C/G, *K, *P, N), (O/G, C/G, *K) -> (*P, N, O/G)

    device_of(x).parallel_for(compute, range(window.groups))
    add_bias(y.swapaxes(0, -1), bias)
    return y.transpose((rank, rank + 1, *range(rank)))


def backward_data(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The input gradient as a convolution: y dilated by the stride, w flipped and its channels exchanged.

    (N, O, *P), (O, C/G, *K) -> (N, C, *S). x[i] = Σ y[p]·w[k] over stride·p + dilation·k = i + padding, which reads the
    dilated y at i + padding - dilation·k: a convolution at stride 1 with the taps in reverse order.
    """
    rank, groups = len(size), window.groups
    reach = [e - 1 for e in window.extent(w.shape[2:])]
    # (O, *S + reach, N): y with zeros between its elements
    dilated = xp(y).zeros((y.shape[1], *(n + r for n, r in zip(size, reach, strict=True)), y.shape[0]), y.dtype)
    target, source = [slice(None)], [slice(None)]
    for n, r, s, p, (before, _) in zip(size, reach, window.stride, y.shape[2:], window.padding, strict=True):
        first = max(0, -((r - before) // s))  # outputs before this one and after `last` read padding only
        last = min(p, (n + before - 1) // s + 1)
        start = r - before + s * first
        target.append(slice(start, start + s * (last - first), s) if last > first else slice(0))
        source.append(slice(first, max(first, last)))
    dilated[tuple(target)] = batch_last(y)[tuple(source)]
    dense = Window((1,) * rank, ((0, 0),) * rank, window.dilation, groups)
    return im2col.forward(batch_first(dilated), flip_taps(swap_channels(w, groups)), dense)


def backward_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The weight gradient as a convolution of x and y transposed, with stride and dilation exchanged.

    (N, C, *S), (N, O, *P) -> (O, C/G, *K): channels and batch swap places. Elements that the stride
    left over make more outputs than K; these are cut off.
    """
    groups, batch, in_per_group, size = window.groups, x.shape[0], x.shape[1] // window.groups, x.shape[2:]
    inputs = x.reshape(batch, groups, in_per_group, *size).swapaxes(0, 2)  # (C/G, G, N, *S)
    inputs = inputs.reshape(in_per_group, groups * batch, *size)
    kernels = y.swapaxes(0, 1)  # (O, N, *P)
    exchanged = Window(window.dilation, window.padding, window.stride, groups)
    w = im2col.forward(inputs, kernels, exchanged).swapaxes(0, 1)  # (O, C/G, *K + surplus)
    return w[(slice(None), slice(None), *(slice(k) for k in kernel))]
