"""Convolutions and poolings drawn by hypothesis, and arrays in every memory order.

The input size is derived from the other draws: output, kernel, options, and a remainder that the stride leaves over.
So no example is discarded, and no formula of needle is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from needle.kernels import Window

LARGEST = {1: 6, 2: 4, 3: 3}  # output and kernel sizes by rank: small enough for loops in Python
TILED = {1: 10, 2: 6, 3: 5}  # output sizes of more than one tile of Winograd's


@dataclass(frozen=True)
class Problem:
    """The shapes of a convolution x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P), and a seed for its values."""

    window: Window
    batch: int
    channels: int
    out_channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    seed: int = 0

    @property
    def rank(self):
        return len(self.size)

    @property
    def x_shape(self):
        return (self.batch, self.channels, *self.size)

    @property
    def w_shape(self):
        return (self.out_channels, self.channels // self.window.groups, *self.kernel)

    @property
    def y_shape(self):
        return (self.batch, self.out_channels, *self.output)

    @property
    def options(self):
        """The options of the public functions; the padding is the same on both sides."""
        window = self.window
        padding = tuple(before for before, _ in window.padding)
        return {"stride": window.stride, "padding": padding, "dilation": window.dilation, "groups": window.groups}

    def values(self, *, dtype="float64"):
        """x, w and y of standard normal draws."""
        draws = np.random.default_rng(self.seed)
        return tuple(draws.standard_normal(shape).astype(dtype) for shape in (self.x_shape, self.w_shape, self.y_shape))


@st.composite
def problems(draw, *, symmetric=False, batches=(1, 3), tiled=False):
    """A Problem of rank 1 to 3; `symmetric` padding is the same before and after, as in the public functions.

    `tiled` ones have stride 1, kernels up to 3 and one group, as Winograd's algorithm needs it.
    """
    rank = draw(st.integers(1, 3))
    outputs, kernels = (
        st.integers(1, (TILED if tiled else LARGEST)[rank]),
        st.integers(1, 3 if tiled else LARGEST[rank]),
    )
    strides, dilations = st.integers(1, 1 if tiled else 3), st.integers(1, 3)
    output, kernel, stride, dilation, padding, size = [], [], [], [], [], []
    for _ in range(rank):
        p, k, s, d = draw(outputs), draw(kernels), draw(strides), draw(dilations)
        padded_size = s * (p - 1) + d * (k - 1) + 1 + draw(st.integers(0, s - 1))
        most = min(padded_size - 1, 6)  # of padding: at least one element of the input is left
        if symmetric:
            before = after = draw(st.integers(0, most // 2))
        else:
            before = draw(st.integers(0, most))
            after = draw(st.integers(0, most - before))
        for values, value in zip(
            (output, kernel, stride, dilation, padding, size),
            (p, k, s, d, (before, after), padded_size - before - after),
            strict=True,
        ):
            values.append(value)
    groups = 1 if tiled else draw(st.integers(1, 3))
    return Problem(
        Window(tuple(stride), tuple(padding), tuple(dilation), groups),
        draw(st.integers(*batches)),
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        tuple(size),
        tuple(kernel),
        tuple(output),
        draw(st.integers(0, 2**32 - 1)),
    )


def any_problems(**options):
    """Problems of both kinds: in any window, and `tiled` ones."""
    return st.one_of(problems(**options), problems(tiled=True, **options))


def problem_of(x, w, *, stride=1, padding=0, dilation=1, groups=1, seed=0):
    """A Problem from the shapes of x and w; each option is one number for all axes, or one for each."""
    rank = len(x) - 2
    stride, padding, dilation = (
        (option,) * rank if isinstance(option, int) else option for option in (stride, padding, dilation)
    )
    sides = zip(x[2:], w[2:], stride, padding, dilation, strict=True)
    output = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
    window = Window(stride, tuple((p, p) for p in padding), dilation, groups)
    return Problem(window, x[0], x[1], w[0], x[2:], w[2:], output, seed)


@st.composite
def pools(draw):
    """A Problem of pooling: strides smaller than, equal to and larger than the kernel, padding up to half of it."""
    rank = draw(st.integers(1, 3))
    output, kernel, stride, padding, size = [], [], [], [], []
    for _ in range(rank):
        p, k, s = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
        padded_size = s * (p - 1) + k + draw(st.integers(0, s - 1))
        pad = draw(st.integers(0, min(k // 2, (padded_size - 1) // 2)))
        for values, value in zip(
            (output, kernel, stride, padding, size), (p, k, s, (pad, pad), padded_size - 2 * pad), strict=True
        ):
            values.append(value)
    channels = draw(st.integers(1, 2))
    return Problem(
        Window(tuple(stride), tuple(padding), (1,) * rank),
        draw(st.integers(1, 3)),
        channels,
        channels,
        tuple(size),
        tuple(kernel),
        tuple(output),
        draw(st.integers(0, 2**32 - 1)),
    )


# ---- memory ----------------------------------------------------------------------------------------------------------

ORDERS = ("row-major", "batch-last", "column-major", "flipped", "sliced", "broadcast")

orders = st.sampled_from(ORDERS)


def arrange(values, order, device):
    """`values` as an array of `device` in a memory order; "broadcast" repeats their first image and first column."""
    ndim = values.ndim
    if order == "row-major":
        return device.array(values)
    if order == "batch-last":
        return device.array(np.moveaxis(values, 0, -1)).transpose((ndim - 1, *range(ndim - 1)))
    if order == "column-major":
        return device.array(values.T).T
    if order == "flipped":  # negative strides
        reverse = (slice(None, None, -1),) * ndim
        return device.array(values[reverse])[reverse]
    if order == "sliced":  # every second element of a larger array, whose others must not be read
        larger = device.xp.full([2 * n + 1 for n in values.shape], np.nan, values.dtype)
        view = larger[(slice(1, None, 2),) * ndim]
        view[...] = device.array(values)
        return view
    assert order == "broadcast"  # strides of 0
    return device.xp.broadcast_to(device.array(values[:1, ..., :1]), values.shape)


def is_batch_last(array):
    """Whether (N, C, *S) is stored as (C, *S, N): strides decrease in this order, down to one element.

    Gaps between the rows are allowed: an input gradient may be the inside of a padded one.
    """
    order = (*range(1, array.ndim), 0)
    steps = [array.strides[axis] for axis in order if array.shape[axis] > 1]
    return steps == sorted(steps, reverse=True) and (not steps or steps[-1] == array.itemsize)
