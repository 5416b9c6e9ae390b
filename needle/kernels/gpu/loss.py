"""Losses on GPUs: one launch for the value and its gradient, one for the multiple of it that backward needs."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.grids import WARP, in_order_of, is_dense, pieces, scratch, width_of
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, or_null, replaces
from needle.kernels.layout import Array
from needle.kernels.loss import scaled_gradient, softmax_cross_entropy, squared_error

source = Source("loss.cu")
STEPS = ("inner_step", "outer_step", "class_step", "inner_label", "outer_label")
SCORES = np.dtype([(name, "i4") for name in ("inner", "outer", "classes", "pad")] + [(name, "i8") for name in STEPS])
LABELS = ("int64", "int32", "uint8")


@replaces(softmax_cross_entropy)
def cross_entropy(
    x: Array, classes: Array, ignored: int, mean: bool, apart: bool = False
) -> tuple[Array, Array, Array]:
    is_served = fits(x) and is_dense(x)
    scores = _scores(x.shape, x.strides, classes.shape, classes.strides, classes.itemsize) if is_served else None
    if scores is None or classes.dtype.name not in LABELS:
        return generic(softmax_cross_entropy)(x, classes, ignored, mean, apart)
    device = device_of(x)
    gradient = device.xp.empty_like(x)
    loss, divisor = (device.xp.empty((), x.dtype) for _ in range(2))
    lanes = WARP if scores["class_step"] == 1 and scores["classes"] >= WARP // 2 else 1
    grid, block = pieces(int(scores["inner"]) * int(scores["outer"]) * lanes)
    arguments = (x, classes, gradient, loss, divisor, *scratch(device, grid[0]), scores, np.int64(ignored))
    options = (np.int32(classes.itemsize), np.int32(mean), np.int32(apart))
    source.launch(x, f"cross_entropy_{lanes}", grid, block, *arguments, *options)
    return loss, gradient, divisor


@lru_cache(maxsize=256)
def _scores(
    shape: tuple[int, ...], strides: tuple[int, ...], label_shape: tuple[int, ...], label_strides: tuple[int, ...],
    label_bytes: int,
) -> Any:  # fmt: skip
    """`Scores` of loss.cu for float32 scores (N, C, *S) or (C,) and their classes.

    The positions are those of N and of *S, each with one step, else None; the one of shorter steps is the inner one.
    """
    axis = min(1, len(shape) - 1)
    places = _one_step(shape[axis + 1 :], strides[axis + 1 :])
    label_places = _one_step(label_shape[axis:], label_strides[axis:])
    if places is None or label_places is None:
        return None
    batch = (shape[0], strides[0] // 4, label_strides[0] // label_bytes) if axis else (1, 0, 0)
    pairs = [batch, (places[0], places[1] // 4, label_places[1] // label_bytes)]
    inner, outer = sorted(pairs, key=lambda pair: (pair[0] == 1, pair[1]))
    counts = inner[0], outer[0], shape[axis], 0
    return np.array([(*counts, inner[1], outer[1], strides[axis] // 4, inner[2], outer[2])], SCORES)[0]


def _one_step(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int] | None:
    """The size and the step (bytes) of axes that lie in memory like one, in this order; else None."""
    axes = [(n, step) for n, step in zip(shape, strides, strict=True) if n > 1]
    if any(step != count * below for (_, step), (count, below) in pairwise(axes)):
        return None
    return math.prod(shape), axes[-1][1] if axes else 0


@replaces(squared_error)
def squared_difference(x: Array, target: Array, mean: bool) -> tuple[Array, Array]:
    if not fits(x, target) or not is_dense(x):
        return generic(squared_error)(x, target, mean)
    device, target = device_of(x), in_order_of(x, target)
    difference, loss = device.xp.empty_like(x), device.xp.empty((), x.dtype)
    width = width_of(x, target)
    grid, block = pieces(x.size // width)
    arguments = (x, target, difference, loss, *scratch(device, grid[0]))
    divisor = np.float64(x.size if mean else 1)
    source.launch(x, f"squared_error_{width}", grid, block, *arguments, np.int32(x.size), divisor)
    return loss, difference


@replaces(scaled_gradient)
def scale(gradient: Array, out_grad: Array, divisor: Array | None = None, factor: float = 1.0) -> Array:
    others = (out_grad,) if divisor is None else (out_grad, divisor)
    if not fits(gradient, *others) or not is_dense(gradient):
        return generic(scaled_gradient)(gradient, out_grad, divisor, factor)
    y, width = device_of(gradient).xp.empty_like(gradient), width_of(gradient)
    arguments = (gradient, out_grad, or_null(divisor), y, np.int32(y.size), np.float32(factor))
    source.launch(gradient, f"scaled_{width}", blocks(y.size // width), (THREADS,), *arguments)
    return y
