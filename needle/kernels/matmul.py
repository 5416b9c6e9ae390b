"""Matrix products on threads."""

from __future__ import annotations

import math

from needle import tuning
from needle.backend import device_of, overridable
from needle.kernels.elementwise import chunk_of
from needle.kernels.layout import Array

__all__ = ["matmul"]


@overridable
def matmul(a: Array, b: Array) -> Array:
    """(*B, n, k), (*B, k, m) -> (*B, n, m), by the rules of NumPy's matmul; threads share its longest axis.

    BLAS could share it too, but its threads keep spinning for a while afterwards and delay the threads of the next op.
    """
    if a.ndim == b.ndim == 2 and a.size * b.shape[1] <= tuning.BLAS_ONE_THREAD_VECTOR_MACS:
        return a @ b  # too small for threads, whatever its shape
    device = device_of(a)
    if device.worker_count() == 1:
        return a @ b
    shape = (*device.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    macs = math.prod(shape) * a.shape[-1]
    has_vector = min(a.shape[-2:] + b.shape[-1:]) <= 1
    if macs <= (tuning.BLAS_ONE_THREAD_VECTOR_MACS if has_vector else tuning.BLAS_ONE_THREAD_MACS):
        return a @ b
    y = device.xp.empty(shape, device.xp.result_type(a, b))
    axis = max(range(len(shape)), key=shape.__getitem__) - len(shape)  # the longest, counted from the end

    def multiply(chunk: slice) -> None:
        left = a if axis == -1 else chunk_of(a, axis, chunk)
        right = b if axis == -2 else chunk_of(b, axis, chunk)
        device.xp.matmul(left, right, out=chunk_of(y, axis, chunk))

    parallel = macs >= tuning.PARALLEL_MATMUL_MACS
    device.parallel_for(multiply, device.chunks(shape[axis], y.nbytes // shape[axis], parallel))
    return y
