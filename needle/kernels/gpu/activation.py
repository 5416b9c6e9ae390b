"""Sigmoid and the gradients of activations on GPUs, one launch each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from needle.backend import device_of
from needle.kernels.activation import relu_grad, sigmoid, sigmoid_grad, tanh_grad
from needle.kernels.gpu.grids import in_order_of, is_dense, width_of
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, replaces
from needle.kernels.layout import Array

source = Source("activation.cu")


@replaces(sigmoid)
def sigmoid_at_once(x: Array) -> Array:
    if not fits(x):
        return generic(sigmoid)(x)
    return _launch("sigmoid", x if is_dense(x) else device_of(x).xp.ascontiguousarray(x))


def _gradient(kernel: Callable[[Array, Array], Array], name: str) -> None:
    @replaces(kernel)
    def gradient(y: Array, out_grad: Array) -> Array:
        if not fits(y, out_grad) or not is_dense(y):
            return generic(kernel)(y, out_grad)
        return _launch(name, y, in_order_of(y, out_grad))


_gradient(relu_grad, "where_positive")
_gradient(sigmoid_grad, "sigmoid_grad")
_gradient(tanh_grad, "tanh_grad")


def _launch(kernel: str, *arrays: Array) -> Array:
    """Launch a kernel of arrays without gaps, of one memory order, which the result has as well."""
    first, result = arrays[0], device_of(arrays[0]).xp.empty_like(arrays[0])
    width, size = width_of(*arrays), first.size
    source.launch(first, f"{kernel}_{width}", blocks(size // width), (THREADS,), *arrays, result, np.int32(size))
    return result
