"""Linear layers on GPUs: small ones in one launch forward and two backward, large ones by cuBLAS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import device_of
from needle.kernels.gpu.source import NULL, THREADS, Source, blocks, fits, generic, is_numbered, or_null, replaces
from needle.kernels.layout import Array
from needle.kernels.linear import linear, linear_backward
from needle.kernels.matmul import matmul
from needle.kernels.window import Size

source = Source("linear.cu")
PRODUCT = np.dtype("i4, i4, i4, 2i4, 2i4, 2i4, 2i4")  # rows, columns, terms; strides of a, mask, b, out
MASKED = np.dtype("i4, i4, 2i4, 2i4, 2i4")  # rows, columns; strides of grad, mask, out
BLOCK = 256  # threads, as in linear.cu
FLAGS = np.int32(0), np.int32(1)


@replaces(matmul)
def matmul_whole(a: Array, b: Array) -> Array:
    return device_of(a).matmul(a, b)


@replaces(linear)
def linear_in_one(x: Array, w: Array, bias: Array | None = None, rectified: bool = False) -> Array:
    served = (x, w) if bias is None else (x, w, bias)
    if not _fit(*served) or not is_numbered(x.size // w.shape[0] * w.shape[1]):
        return generic(linear)(x, w, bias, rectified)
    if x.ndim > 2:
        return linear_in_one(x.reshape(-1, x.shape[-1]), w, bias, rectified).reshape(*x.shape[:-1], w.shape[1])
    (n, features), outputs = x.shape, w.shape[1]
    y = _like(x, n, outputs)
    pointer: Any = NULL if bias is None else device_of(x).xp.ascontiguousarray(bias)
    if _is_small(outputs, n, features):  # transposed: yᵀ = wᵀ xᵀ
        strides = w.strides[::-1], None, x.strides[::-1], y.strides[::-1]
        _product((outputs, n, features), strides, (w, NULL, x, pointer, y, NULL), rectified)
        return y
    device_of(x).matmul(x, w, out=y)
    if bias is not None or rectified:
        run = 1 if y.flags.c_contiguous else n
        sizes = (np.int32(size) for size in (y.size, run, outputs, rectified))
        source.launch(y, "bias_relu", blocks(y.size), (THREADS,), y, pointer, *sizes)
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
    device, mask, (n, features), outputs = device_of(x), output, x.shape, w.shape[1]
    x_grad = _like(x, n, features) if needed[0] else None
    w_grad = _like(w, features, outputs) if needed[1] else None
    bias_grad = device.xp.empty(outputs, w.dtype) if needed[2] else None
    by_cublas = (needed[0] and not _is_small(n, features, outputs)) or (
        needed[1] and not _is_small(outputs, features, n)
    )
    if (by_cublas and mask is not None) or (bias_grad is not None and (by_cublas or w_grad is None)):
        out_grad, mask, sums = _masked(out_grad, mask, bias_grad), None, None
    else:
        sums = bias_grad
    if by_cublas:
        if x_grad is not None:
            device.matmul(out_grad, w.T, out=x_grad)
        if w_grad is not None:
            device.matmul(x.T, out_grad, out=w_grad)
        return x_grad, w_grad, bias_grad
    grad_strides, mask_strides = out_grad.strides, None if mask is None else mask.strides
    if x_grad is not None:
        strides = grad_strides, mask_strides, w.strides[::-1], x_grad.strides
        _product((n, features, outputs), strides, (out_grad, or_null(mask), w, NULL, x_grad, NULL))
    if w_grad is not None:  # transposed: the rows of out_gradᵀ are summed on the way
        mask_strides = mask_strides and mask_strides[::-1]
        strides = grad_strides[::-1], mask_strides, x.strides, w_grad.strides[::-1]
        _product((outputs, features, n), strides, (out_grad, or_null(mask), x, NULL, w_grad, or_null(sums)))
    return x_grad, w_grad, bias_grad


def _fit(*arrays: Array) -> bool:
    """Whether kernels serve the arrays: float32, not empty, and places of elements that 32 bits hold."""
    return fits(*arrays) and all(_is_near(array.shape, array.strides) for array in arrays)


@lru_cache(maxsize=4096)
def _is_near(shape: Size, strides: Size) -> bool:
    reach = sum((size - 1) * abs(step) for size, step in zip(shape, strides, strict=True))
    return reach < 2**33


def _like(x: Array, rows: int, columns: int) -> Array:
    """A new matrix in the memory order of the matrix x."""
    empty = device_of(x).xp.empty
    return empty((columns, rows), x.dtype).T if x.strides[0] < x.strides[1] else empty((rows, columns), x.dtype)


def _is_small(rows: int, columns: int, terms: int) -> bool:
    """Whether our kernel multiplies (rows, terms) by (terms, columns), not cuBLAS."""
    return terms <= tuning.PRODUCT_MAX_TERMS and rows * terms * columns <= tuning.PRODUCT_MAX_MACS


def _product(sizes: Size, strides: tuple[Size | None, ...], pointers: Sequence[Any], rectified: bool = False) -> None:
    """`product` of linear.cu for (rows, columns, terms), strides of (a, mask, b, out), and its arrays."""
    rows, columns, _ = sizes
    blocks_of_16 = -(-rows // 16) * -(-columns // 16)
    if blocks_of_16 >= tuning.PRODUCT_FEW_BLOCKS:
        name, grid = "product_16", (blocks_of_16,)
    else:
        name, grid = "product_8", (-(-rows // 8) * -(-columns // 8),)
    source.launch(pointers[0], name, grid, (BLOCK,), *pointers, _struct(PRODUCT, sizes, *strides), FLAGS[rectified])


def _masked(grad: Array, mask: Array | None, sums: Array | None) -> Array:
    """grad (n, O) where `mask` is positive, else 0; `sums` (O,) becomes its sums. Without a mask, grad itself."""
    rows, columns = grad.shape
    out = grad if mask is None else _like(grad, rows, columns)
    per_block = BLOCK // 32 if grad.strides[0] == grad.itemsize else 32
    strides = grad.strides, None if mask is None else mask.strides, out.strides
    pointers = grad, or_null(mask), NULL if mask is None else out, or_null(sums)
    struct = _struct(MASKED, grad.shape, *strides)
    source.launch(grad, "mask_sums", blocks(columns, per_block), (BLOCK,), *pointers, struct)
    return out


@lru_cache(maxsize=4096)
def _struct(dtype: Any, sizes: Size, *strides: Size | None) -> np.void:
    """Sizes and strides (bytes) as the structure of a kernel, in elements; 0 without any, or along one element."""
    pairs = (pair or (0, 0) for pair in strides)
    steps = (tuple(step // 4 if abs(step) < 2**33 else 0 for step in pair) for pair in pairs)
    struct: np.void = np.array([(*sizes, *steps)], dtype)[0]
    return struct
