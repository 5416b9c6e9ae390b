"""Gradients of activations on GPUs, one launch each."""

from __future__ import annotations

import numpy as np

from needle.backend import device_of
from needle.kernels.activation import relu_grad
from needle.kernels.gpu.grids import in_order_of, is_dense, width_of
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, replaces
from needle.kernels.layout import Array

source = Source("activation.cu")


@replaces(relu_grad)
def where_positive(y: Array, out_grad: Array) -> Array:
    if not fits(y, out_grad) or not is_dense(y):
        return generic(relu_grad)(y, out_grad)
    out_grad, result = in_order_of(y, out_grad), device_of(y).xp.empty_like(y)
    width = width_of(y, out_grad)
    grid = blocks(y.size // width)
    source.launch(y, f"where_positive_{width}", grid, (THREADS,), y, out_grad, result, np.int32(y.size))
    return result
