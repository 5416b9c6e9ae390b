"""Activations, and derivatives from their results, in few passes; threads share large arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

from needle import tuning
from needle.backend import overridable, xp
from needle.kernels.elementwise import elementwise
from needle.kernels.layout import Array

__all__ = ["rectify", "relu", "relu_grad", "sigmoid", "sigmoid_grad", "tanh_grad", "where_positive"]


def relu(x: Array) -> Array:
    """max(x, 0); zeros may have either sign."""
    if x.size < tuning.RELU_MAXIMUM_SIZE or x.dtype.kind != "f":
        return xp(x).maximum(x, 0)
    return _shared(rectify, x)


def rectify(x: Array, out: Array | None = None) -> Array:
    """max(x, 0) of floats, written into `out`. NumPy's `maximum` with a number takes three times as long."""
    return x.clip(0, math.inf, out=out)


@overridable
def relu_grad(y: Array, out_grad: Array) -> Array:
    """`where_positive`, for y = relu(x), or x itself."""
    if y.size < tuning.RELU_MAXIMUM_SIZE and y.strides == out_grad.strides:
        return out_grad * (y > 0)
    return _shared(where_positive, y, out_grad)


def where_positive(y: Array, out_grad: Array, out: Array | None = None) -> Array:
    """`out_grad`, 0 where y is not positive, in the memory order of y: out_grad may be a broadcast view, of no order.

    NumPy multiplies by bools 20 times faster than it selects with `where`. Many of them are first made numbers, by
    vector code, which takes 0.7 of the time in cache.
    """
    out = xp(y).empty_like(y, dtype=out_grad.dtype) if out is None else out
    xp(y).copyto(out, y > 0)
    return xp(y).multiply(out, out_grad, out=out)


@overridable
def sigmoid(x: Array) -> Array:
    """1 / (1 + e ** -x), computed from e ** -|x|, which cannot overflow and keeps small results exact."""
    small = xp(x).exp(xp(x).minimum(x, -x))
    return xp(x).maximum(small, x >= 0) / (small + 1)


@overridable
def sigmoid_grad(y: Array, out_grad: Array) -> Array:
    """(1 - y)·y·out_grad, for y = sigmoid(x)."""
    return _shared(_sigmoid_grad, y, out_grad)


@overridable
def tanh_grad(y: Array, out_grad: Array) -> Array:
    """(1 - y²)·out_grad, for y = tanh(x)."""
    return _shared(_tanh_grad, y, out_grad)


def _sigmoid_grad(y: Array, out_grad: Array, out: Array | None = None) -> Array:
    out = xp(y).subtract(1, y, out=out)
    out *= y
    out *= out_grad
    return out


def _tanh_grad(y: Array, out_grad: Array, out: Array | None = None) -> Array:
    out = xp(y).multiply(y, y, out=out)
    out = xp(y).subtract(1, out, out=out if out.ndim else None)  # NumPy returns a number for a 0-d array
    out *= out_grad
    return out


def _shared(work: Callable[..., Array], x: Array, *others: Array) -> Array:
    return work(x, *others) if x.nbytes < tuning.PARALLEL_ELEMENTWISE_BYTES else elementwise(work, x, *others)
