"""Matrix products on threads."""

from __future__ import annotations

import math

from needle import tuning
from needle.backend import device_of, overridable
from needle.kernels.elementwise import chunk_of
from needle.kernels.layout import Array

__all__ = ["matmul", "matmul_like"]


@overridable
def matmul(a: Array, b: Array) -> Array:
    """(*B, n, k), (*B, k, m) -> (*B, n, m), by the rules of NumPy's matmul; threads share its longest axis.

    BLAS could share it too, but its threads keep spinning for a while afterwards and delay the threads of the next op.
    """
    device = device_of(a)
    if a.ndim == b.ndim == 2 and a.size * b.shape[1] <= tuning.BLAS_ONE_THREAD_VECTOR_MACS:
        return device.matmul(a, b)  # too small for threads, whatever its shape
    if a.shape[-1] > tuning.BLAS_MATMUL_TERMS and _adds_one_by_one(a, b):
        return _in_blocks(a, b)
    if device.worker_count() == 1:
        return device.matmul(a, b)
    shape = (*device.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    macs = math.prod(shape) * a.shape[-1]
    has_vector = min(a.shape[-2:] + b.shape[-1:]) <= 1
    if macs <= (tuning.BLAS_ONE_THREAD_VECTOR_MACS if has_vector else tuning.BLAS_ONE_THREAD_MACS):
        return device.matmul(a, b)
    y = device.xp.empty(shape, device.xp.result_type(a, b))
    axis = max(range(len(shape)), key=shape.__getitem__) - len(shape)  # the longest, counted from the end

    def multiply(chunk: slice) -> None:
        left = a if axis == -1 else chunk_of(a, axis, chunk)
        right = b if axis == -2 else chunk_of(b, axis, chunk)
        device.matmul(left, right, out=chunk_of(y, axis, chunk))

    parallel = macs >= tuning.PARALLEL_MATMUL_MACS
    device.parallel_for(multiply, device.chunks(shape[axis], y.nbytes // shape[axis], parallel))
    return y


def matmul_like(x: Array, a: Array, b: Array) -> Array:
    """a (n, k) @ b (k, m), in the memory order of the matrix x."""
    return matmul(b.T, a.T).T if x.strides[0] < x.strides[1] else matmul(a, b)


def _adds_one_by_one(a: Array, b: Array) -> bool:
    """Whether BLAS adds all terms of an element of a @ b one after the other, in the dtype of a."""
    n, m = a.shape[-2], b.shape[-1]
    is_small = min(n, m) > 1 and n * m * a.shape[-1] <= tuning.BLAS_UNPACKED_MACS
    return bool(is_small and a.dtype == b.dtype == "float32")


def _in_blocks(a: Array, b: Array) -> Array:
    """a @ b as products of few terms, (*B, count, n, k) @ (*B, count, k, m), added in float64."""
    k = tuning.BLAS_MATMUL_TERMS // 8
    count = a.shape[-1] // k
    whole = count * k
    left = a[..., :whole].reshape(*a.shape[:-1], count, k).swapaxes(-3, -2)
    right = b[..., :whole, :].reshape(*b.shape[:-2], count, k, b.shape[-1])
    total = (left @ right).sum(axis=-3, dtype="float64")
    if whole < a.shape[-1]:
        total += a[..., whole:] @ b[..., whole:, :]
    return total.astype(a.dtype, copy=False)
