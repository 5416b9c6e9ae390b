"""Convolution on GPUs, float32: one launch forward, two for all gradients.

The sum of a weight gradient is long, so several blocks add up parts of it, and a following launch adds the parts in
order: that of the other gradient, or one of its own. Arrays are read through their strides, nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from needle import tuning
from needle.backend import device_of
from needle.backend.tf32 import tf32_allowed
from needle.kernels.activation import relu_grad
from needle.kernels.conv.dispatch import (
    correlate,
    correlate_backward,
    correlate_rectified,
    correlate_transpose,
    correlate_transpose_backward,
    correlate_transpose_biased,
    correlate_weight,
    is_requested,
)
from needle.kernels.gpu.source import NULL, Source, fits, generic, is_numbered, replaces
from needle.kernels.layout import Array, batch_first
from needle.kernels.window import Size, Window, check_conv

__all__: list[str] = []

PRODUCT, DIRECT, WEIGHT = Source("conv.cu"), Source("conv_direct.cu"), Source("conv_weight.cu")
THREADS, DEPTH, SOME_TAPS = 128, 16, 8  # constants of the sources


def _struct(**fields: Any) -> np.dtype[Any]:
    return np.dtype([(name, *kind) for name, kind in fields.items()])


INT, THREE = ("i4",), ("i4", 3)
AXIS = _struct(size=INT, output=INT, taps=INT, stride=INT, dilation=INT, before=INT, first=INT)
CONV = _struct(axis=(AXIS, 3), batch=INT, groups=INT, in_per_group=INT, out_per_group=INT)
VIEW = _struct(channel=INT, place=THREE, image=INT)
TAPS = _struct(out=INT, in_per_group=INT, tap=THREE)
PARTS = _struct(blocks=INT, count=INT, step=INT, weights=INT, biases=INT)
CUT = _struct(
    parts=INT, terms=INT, step=INT, biases=INT, image_blocks=INT, image_terms=INT, masks_x=INT, vector=INT
)  # fmt: skip
NO_BIAS, BIAS_OF_Y, BIAS_OF_X = range(3)


def _made(struct: np.dtype[Any], *fields: Any) -> np.void:
    value: np.void = np.array([fields], struct)[0]
    return value


# ---- what a launch needs, by shape -----------------------------------------------------------------------------------


class View(NamedTuple):
    """How kernels read an array: its steps in elements, whether four images are one access, whether 32 bits suffice."""

    steps: np.void
    by_four: bool
    is_served: bool


@lru_cache(maxsize=4096)
def _view(shape: Size, strides: Size) -> View:
    """The view of an array (N, C, *S)."""
    image, channel, *space = (step // 4 for step in strides)
    steps = _made(VIEW, channel, _three(space, 0), image)
    reach = sum((n - 1) * abs(step) for n, step in zip(shape, strides, strict=True))
    by_four = shape[0] % 4 == 0 and image == 1 and all(step % 16 == 0 for step in strides[1:])
    return View(steps, by_four, reach < 2**33 and all(step % 4 == 0 for step in strides))


@lru_cache(maxsize=4096)
def _tap_steps(strides: Size) -> np.void:
    """The steps of a kernel (O, C/G, *K)."""
    out, in_per_group, *taps = (step // 4 for step in strides)
    return _made(TAPS, out, in_per_group, _three(taps, 0))


def _three(numbers: Sequence[int], lacking: int) -> tuple[int, ...]:
    """Numbers for three axes; those that lack come first."""
    return (*(lacking,) * (3 - len(numbers)), *numbers)


@lru_cache(maxsize=4096)
def _geometry(x_shape: Size, w_shape: Size, window: Window, live: bool) -> np.void:
    """`Conv` of conv_places.cu; with `live`, without taps that only ever read padding."""
    size, kernel = x_shape[2:], w_shape[2:]
    output = window.output(size, kernel)
    first = (0,) * len(size)
    if live:
        taps, window = window.without_dead_taps(size, kernel)
        first, kernel = tuple(cut.start for cut in taps), tuple(cut.stop - cut.start for cut in taps)
    before = tuple(pair[0] for pair in window.padding)
    axes = list(zip(size, output, kernel, window.stride, window.dilation, before, first, strict=True))
    axes = [(1, 1, 1, 1, 1, 0, 0)] * (3 - len(axes)) + axes
    return _made(CONV, axes, x_shape[0], window.groups, w_shape[1], w_shape[0] // window.groups)


class Plan(NamedTuple):
    source: Source
    kernel: str
    blocks: int


@lru_cache(maxsize=4096)
def _product_plan(x_shape: Size, w_shape: Size, window: Window, transposed: bool, vector: bool, tf32: bool) -> Plan:
    """Which kernel computes a convolution, or its transpose, and in how many blocks."""
    batch, size = x_shape[0], x_shape[2:]
    rows, phases, places = w_shape[0] // window.groups, 1, math.prod(window.output(size, w_shape[2:]))
    if transposed:
        rows, phases = w_shape[1], math.prod(map(min, window.stride, size))
        places = math.prod(-(-n // s) for n, s in zip(size, window.stride, strict=True))
    if rows < tuning.CUDA_DIRECT_ROWS:
        source, kernel, height, width = DIRECT, "convolve_direct", 1, THREADS * (4 if vector else 1)
    elif rows <= 32:
        source, height, width = PRODUCT, 16 if rows <= 16 else 32, 128
        kernel = f"convolve_{height}"
    else:
        source, kernel, height, width = PRODUCT, "convolve_tf32" if tf32 else "convolve_64", 64, 64
    return Plan(source, kernel, -(-rows // height) * window.groups * phases * -(-places * batch // width))


class WeightPlan(NamedTuple):
    kernel: str
    blocks: int
    cut: np.void
    parts: np.void
    partial_size: int


@lru_cache(maxsize=4096)
def _weight_plan(
    x_shape: Size, w_shape: Size, window: Window, vector: bool, tf32: bool, biases: int, masks_x: bool
) -> WeightPlan:
    """Which kernel computes the gradient of a kernel (O, C/G, *K), and how its sums are cut.

    The cut depends on shapes alone, so results are the same bits on every GPU.
    """
    (batch, channels, *size), (out_channels, in_per_group, *kernel) = x_shape, w_shape
    groups, taps, rows = window.groups, math.prod(kernel), out_channels // window.groups
    if rows < tuning.CUDA_DIRECT_ROWS:
        name, tiles = "weigh_direct", out_channels * in_per_group * -(-taps // SOME_TAPS)
    else:
        height = 32 if rows <= 32 else 64
        name = "weigh_tf32" if height == 64 and tf32 else f"weigh_{height}"
        tiles = -(-rows // height) * -(-in_per_group * taps // 64) * groups
    terms = math.prod(window.output(tuple(size), tuple(kernel))) * batch
    parts = max(1, min(-(-tuning.CUDA_SUM_BLOCKS // tiles), terms // tuning.CUDA_SUM_TERMS))
    each = -(-terms // (parts * DEPTH)) * DEPTH
    parts = -(-terms // each)
    weights, bias_count = math.prod(w_shape), (0, out_channels, channels)[biases]
    step = -(-(weights + bias_count) // 4) * 4
    image_blocks = channels * parts if biases == BIAS_OF_X else 0
    image_terms = -(-math.prod(size) * batch // (parts * 4)) * 4
    cut = _made(CUT, parts, each, step, biases, image_blocks, image_terms, masks_x, vector)
    sums = _made(PARTS, -(-(weights + bias_count) // THREADS), parts, step, weights, bias_count)
    return WeightPlan(name, image_blocks + tiles * parts, cut, sums, parts * step if parts > 1 else 0)


# ---- launches --------------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """Gradients of a kernel and of a bias, which a following launch adds up, where there are parts."""

    w_grad: Array
    bias_grad: Array
    parts: np.void
    partial: Array


NOTHING = Sums(NULL, NULL, _made(PARTS, 0, 0, 0, 0, 0), NULL)


def _serves(x: Array, other: Array, *arrays: Array) -> bool:
    """Whether the kernels read these arrays; x and `other` are (N, C, *S) or w."""
    every = (x, other, *arrays)
    return (
        x.ndim <= 5 and fits(*every) and not is_requested() and all(_view(a.shape, a.strides).is_served for a in every)
    )


def _is_numbered(source: Array, size: Size) -> bool:
    """Whether the kernels number the places of a result of this size, in all images of `source`."""
    return is_numbered(source.shape[0] * math.prod(size))


def _reads_by_four(array: Array) -> bool:
    return _view(array.shape, array.strides).by_four and device_of(array).address(array) % 16 == 0


def _convolve(
    source: Array, mask: Array, w: Array, window: Window, x_shape: Size, transposed: bool,
    bias: Array | None = None, relu: bool = False, sums: Sums = NOTHING,
) -> Array:  # fmt: skip
    """A convolution of x, or the transpose of one of y, where the mask is positive; and the sums of a launch before."""
    vector = _reads_by_four(source) and (mask is NULL or _reads_by_four(mask))
    plan = _product_plan(x_shape, w.shape, window, transposed, vector, tf32_allowed())
    xp = device_of(source).xp
    if transposed:
        shape = (x_shape[1], *x_shape[2:], x_shape[0])
    else:
        shape = (w.shape[0], *window.output(x_shape[2:], w.shape[2:]), x_shape[0])
    out = xp.empty(shape, source.dtype)
    plan.source.launch(
        source, plan.kernel, (int(sums.parts["blocks"]) + plan.blocks,), (THREADS,),
        source, mask, w, NULL if bias is None else xp.ascontiguousarray(bias), out,
        sums.partial, sums.w_grad, sums.bias_grad,
        _geometry(x_shape, w.shape, window, True), _view(source.shape, source.strides).steps, _tap_steps(w.strides),
        sums.parts, np.int32(transposed), np.int32(relu), np.int32(vector),
    )  # fmt: skip
    return batch_first(out)


def _weigh(
    x: Array, y: Array, mask: Array, w_shape: Size, window: Window, biases: int = NO_BIAS, masks_x: bool = False
) -> Sums:
    """The gradients of a kernel and of a bias, in parts that remain to be added."""
    vector = _reads_by_four(x) and _reads_by_four(y) and (mask is NULL or _reads_by_four(mask))
    plan = _weight_plan(x.shape, w_shape, window, vector, tf32_allowed(), biases, masks_x)
    xp = device_of(x).xp
    w_grad = xp.empty(w_shape, x.dtype)
    bias_grad = xp.empty((int(plan.parts["biases"]),), x.dtype) if biases else NULL
    partial = xp.empty((plan.partial_size,), x.dtype) if plan.partial_size else NULL
    targets = (w_grad, bias_grad) if partial is NULL else (partial, NULL)
    WEIGHT.launch(
        x, plan.kernel, (plan.blocks,), (THREADS,), x, y, mask, *targets,
        _geometry(x.shape, w_shape, window, False), _view(x.shape, x.strides).steps, _view(y.shape, y.strides).steps,
        plan.cut,
    )  # fmt: skip
    if partial is NULL:
        return Sums(w_grad, bias_grad, NOTHING.parts, NULL)
    return Sums(w_grad, bias_grad, plan.parts, partial)


def _add_up(sums: Sums) -> None:
    """Add the parts where no other launch follows."""
    if sums.partial is not NULL:
        grid = (int(sums.parts["blocks"]),)
        arrays = (sums.partial, sums.w_grad, sums.bias_grad)
        WEIGHT.launch(sums.partial, "add_weights", grid, (THREADS,), *arrays, sums.parts)


def _masked(grad: Array, output: Array | None) -> tuple[Array, Array]:
    """A gradient and the mask by which kernels read it; they read both at the same places."""
    if output is None:
        return grad, NULL
    return (grad, output) if grad.strides == output.strides else (relu_grad(output, grad), NULL)


# ---- the kernels that these replace ----------------------------------------------------------------------------------


@replaces(correlate)
def _correlate(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    return _forward(x, w, window, bias, False)


@replaces(correlate_rectified)
def _correlate_rectified(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    return _forward(x, w, window, bias, True)


def _forward(x: Array, w: Array, window: Window, bias: Array | None, relu: bool) -> Array:
    check_conv(x.shape, w.shape, None, window)
    output = window.output(x.shape[2:], w.shape[2:])
    if not _serves(x, w) or (bias is not None and not fits(bias)) or not _is_numbered(x, output):
        return generic(correlate_rectified if relu else correlate)(x, w, window, bias)
    return _convolve(x, NULL, w, window, x.shape, False, bias, relu)


@replaces(correlate_transpose)
def _correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    if not _serves(y, w) or not _is_numbered(y, size):
        return generic(correlate_transpose)(y, w, window, size)
    return _backward_data(y, w, window, size)


@replaces(correlate_transpose_biased)
def _correlate_transpose_biased(y: Array, w: Array, window: Window, size: Size, bias: Array) -> Array:
    if not _serves(y, w) or not fits(bias) or not _is_numbered(y, size):
        return generic(correlate_transpose_biased)(y, w, window, size, bias)
    return _backward_data(y, w, window, size, bias)


def _backward_data(y: Array, w: Array, window: Window, size: Size, bias: Array | None = None) -> Array:
    x_shape = (y.shape[0], w.shape[1] * window.groups, *size)
    check_conv(x_shape, w.shape, y.shape, window)
    return _convolve(y, NULL, w, window, x_shape, True, bias)


@replaces(correlate_weight)
def _correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    if not _serves(x, y):
        return generic(correlate_weight)(x, y, window, kernel)
    w_shape = (y.shape[1], x.shape[1] // window.groups, *kernel)
    check_conv(x.shape, w_shape, y.shape, window)
    sums = _weigh(x, y, NULL, w_shape, window)
    _add_up(sums)
    return sums.w_grad


@replaces(correlate_backward)
def _correlate_backward(
    out_grad: Array, x: Array, w: Array, window: Window, needed: Sequence[bool], output: Array | None = None
) -> tuple[Array | None, ...]:
    if not _serves(x, w, out_grad):
        return generic(correlate_backward)(out_grad, x, w, window, needed, output)
    check_conv(x.shape, w.shape, out_grad.shape, window)
    grad, mask = _masked(out_grad, output)
    sums, x_grad = NOTHING, None
    if any(needed[1:]):
        biases = BIAS_OF_Y if any(needed[2:]) else NO_BIAS
        sums = _weigh(x, grad, mask, w.shape, window, biases)
    if needed[0]:
        x_grad = _convolve(grad, mask, w, window, x.shape, True, sums=sums)
    else:
        _add_up(sums)
    return _needed((x_grad, sums.w_grad, sums.bias_grad), needed)


@replaces(correlate_transpose_backward)
def _correlate_transpose_backward(
    out_grad: Array, y: Array, w: Array, window: Window, needed: Sequence[bool]
) -> tuple[Array | None, ...]:
    if not _serves(y, w, out_grad):
        return generic(correlate_transpose_backward)(out_grad, y, w, window, needed)
    check_conv(out_grad.shape, w.shape, y.shape, window)
    sums, y_grad = NOTHING, None
    if any(needed[1:]):
        biases = BIAS_OF_X if any(needed[2:]) else NO_BIAS
        sums = _weigh(out_grad, y, NULL, w.shape, window, biases)
    if needed[0]:
        y_grad = _convolve(out_grad, NULL, w, window, out_grad.shape, False, sums=sums)
    else:
        _add_up(sums)
    return _needed((y_grad, sums.w_grad, sums.bias_grad), needed)


def _needed(grads: Sequence[Array], needed: Sequence[bool]) -> tuple[Array | None, ...]:
    return tuple(grad if wanted else None for grad, wanted in zip(grads, needed, strict=False))
