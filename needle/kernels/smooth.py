"""Derivatives of smooth functions, from their results: three passes where ops would make three values."""

from __future__ import annotations

from collections.abc import Callable

from needle import tuning
from needle.backend import xp
from needle.kernels.elementwise import elementwise
from needle.kernels.layout import Array

__all__ = ["sigmoid_grad", "tanh_grad"]


def sigmoid_grad(y: Array, out_grad: Array) -> Array:
    """(1 - y)·y·out_grad, for y = sigmoid(x)."""
    return _shared(_sigmoid_grad, y, out_grad)


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


def _shared(work: Callable[..., Array], y: Array, out_grad: Array) -> Array:
    return work(y, out_grad) if y.nbytes < tuning.PARALLEL_ELEMENTWISE_BYTES else elementwise(work, y, out_grad)
