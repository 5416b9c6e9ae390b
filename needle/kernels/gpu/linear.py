"""Linear layers on GPUs: small ones in one launch forward and two backward, large ones by cuBLAS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import device_of
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, replaces
from needle.kernels.layout import Array
from needle.kernels.linear import linear, linear_backward
from needle.kernels.matmul import matmul

source = Source("linear.cu")
NULL = np.uint64(0)  # a pointer
PRODUCT = np.dtype("i4, i4, i4, 2i4, 2i4, 2i4, 2i4")  # rows, columns, terms; strides of a, mask, b, out
MASKED = np.dtype("i4, i4, 2i4, 2i4, 2i4")  # rows, columns; strides of grad, mask, out
BLOCK = 256  # threads, as in linear.cu


@replaces(matmul)
def matmul_whole(a: Array, b: Array) -> Array:
    return device_of(a).matmul(a, b)


@replaces(linear)
def linear_in_one(x: Array, w: Array, bias: Array | None = None, rectified: bool = False) -> Array:
    if not _fit(x, w) or (bias is not None and not _fit(bias)):
        return generic(linear)(x, w, bias, rectified)
    if x.ndim > 2:
        return linear_in_one(x.reshape(-1, x.shape[-1]), w, bias, rectified).reshape(*x.shape[:-1], w.shape[1])
    y = _like(x, x.shape[0], w.shape[1])
    bias = None if bias is None else bias.reshape(-1)
    if _is_small(w.T, x.T):
        _product(w.T, x.T, y.T, bias=bias, rectified=rectified)
        return y
    device_of(x).matmul(x, w, out=y)
    if bias is not None or rectified:
        run = 1 if y.flags.c_contiguous else y.shape[0]
        sizes = (np.int32(size) for size in (y.size, run, y.shape[1], rectified))
        source.launch(y, "bias_relu", blocks(y.size), (THREADS,), y, NULL if bias is None else bias, *sizes)
    return y


@replaces(linear_backward)
def linear_backward_in_two(
    out_grad: Array, x: Array, w: Array, needed: Sequence[bool], output: Array | None = None
) -> tuple[Array | None, Array | None, Array | None]:
    if not _fit(out_grad, x, w) or (output is not None and not _fit(output)):
        return generic(linear_backward)(out_grad, x, w, needed, output)
    if x.ndim > 2:
        flat = (None if array is None else array.reshape(-1, array.shape[-1]) for array in (out_grad, x, output))
        grad, rows, mask = flat
        x_grad, *others = linear_backward_in_two(grad, rows, w, needed, mask)
        return (None if x_grad is None else x_grad.reshape(x.shape), *others)  # type: ignore[return-value]  # of three
    device, mask = device_of(x), output
    x_grad = _like(x, *x.shape) if needed[0] else None
    w_grad = _like(w, *w.shape) if needed[1] else None
    bias_grad = device.xp.empty(w.shape[1], w.dtype) if needed[2] else None
    by_cublas = (needed[0] and not _is_small(out_grad, w.T)) or (needed[1] and not _is_small(out_grad.T, x))
    sums = bias_grad
    if (by_cublas and mask is not None) or (bias_grad is not None and (by_cublas or w_grad is None)):
        out_grad, mask, sums = _masked(out_grad, mask, bias_grad), None, None
    if by_cublas:
        if x_grad is not None:
            device.matmul(out_grad, w.T, out=x_grad)
        if w_grad is not None:
            device.matmul(x.T, out_grad, out=w_grad)
        return x_grad, w_grad, bias_grad
    if x_grad is not None:
        _product(out_grad, w.T, x_grad, mask)
    if w_grad is not None:
        _product(out_grad.T, x, w_grad.T, None if mask is None else mask.T, sums=sums)
    return x_grad, w_grad, bias_grad


def _fit(*arrays: Array) -> bool:
    """Whether kernels serve the arrays: float32, and places of elements that 32 bits hold."""
    return fits(*arrays) and all(
        sum((size - 1) * abs(step) for size, step in zip(array.shape, array.strides, strict=True)) < 2**33
        for array in arrays
    )


def _like(x: Array, rows: int, columns: int) -> Array:
    """A new matrix in the memory order of the matrix x."""
    empty = device_of(x).xp.empty
    return empty((columns, rows), x.dtype).T if x.strides[0] < x.strides[1] else empty((rows, columns), x.dtype)


def _is_small(a: Array, b: Array) -> bool:
    """Whether our kernel multiplies a (rows, terms) by b (terms, columns), not cuBLAS."""
    (rows, terms), columns = a.shape, b.shape[1]
    return bool(terms <= tuning.PRODUCT_MAX_TERMS and rows * terms * columns <= tuning.PRODUCT_MAX_MACS)


def _product(
    a: Array, b: Array, out: Array, mask: Array | None = None, bias: Array | None = None, sums: Array | None = None,
    rectified: bool = False,
) -> None:  # fmt: skip
    """Write a (rows, terms) @ b (terms, columns) into `out`: see `product` in linear.cu."""
    (rows, terms), columns = a.shape, b.shape[1]
    tiles = {tile: math.ceil(rows / tile) * math.ceil(columns / tile) for tile in (8, 16)}
    tile = 16 if tiles[16] >= tuning.PRODUCT_FEW_BLOCKS else 8
    pointers = a, _pointer(mask), b, _pointer(bias), out, _pointer(sums)
    struct: Any = np.array([(rows, columns, terms, _steps(a), _steps(mask), _steps(b), _steps(out))], PRODUCT)[0]
    source.launch(a, f"product_{tile}", (tiles[tile],), (BLOCK,), *pointers, struct, np.int32(rectified))


def _masked(grad: Array, mask: Array | None, sums: Array | None) -> Array:
    """grad (n, O) where `mask` is positive, else 0; `sums` (O,) becomes its sums. Without a mask, grad itself."""
    rows, columns = grad.shape
    out = grad if mask is None else _like(grad, rows, columns)
    per_block = BLOCK // 32 if grad.strides[0] == grad.itemsize else 32
    pointers = grad, _pointer(mask), NULL if mask is None else out, _pointer(sums)
    struct: Any = np.array([(rows, columns, _steps(grad), _steps(mask), _steps(out))], MASKED)[0]
    source.launch(grad, "mask_sums", blocks(columns, per_block), (BLOCK,), *pointers, struct)
    return out


def _steps(matrix: Array | None) -> tuple[int, int]:
    """The strides in elements; 0 along an axis of one element, and without a matrix."""
    if matrix is None:
        return 0, 0
    down, across = (0 if size == 1 else step // 4 for size, step in zip(matrix.shape, matrix.strides, strict=True))
    return down, across


def _pointer(array: Array | None) -> Any:
    return NULL if array is None else array
