"""Matrix products on threads."""

from __future__ import annotations

import math

from needle.backend import device_of, xp
from needle.kernels.layout import Array, part_of

ALONE, ALONE_BY_VECTOR = 1 << 18, 9216  # multiplications up to which OpenBLAS takes a single thread by itself
SHARED_PRODUCT = 1 << 22  # multiplications from which on a product is worth sharing


def matmul(a: Array, b: Array) -> Array:
    """(*B, n, k), (*B, k, m) -> (*B, n, m), by the rules of NumPy's matmul; threads share its longest axis.

    BLAS could share it too, but its threads go on looking for work for a while, and so hold up those of the next op.
    """
    device = device_of(a)
    if device.worker_count() == 1:
        return a @ b
    shape = (*xp(a).broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    products = math.prod(shape) * a.shape[-1]
    alone = ALONE if min(a.shape[-2:] + b.shape[-1:]) > 1 else ALONE_BY_VECTOR
    if products <= alone:
        return a @ b
    y = xp(a).empty(shape, xp(a).result_type(a, b))
    axis = max(range(len(shape)), key=shape.__getitem__) - len(shape)

    def work(part: slice) -> None:
        left = a if axis == -1 else part_of(a, axis, part)
        right = b if axis == -2 else part_of(b, axis, part)
        xp(a).matmul(left, right, out=part_of(y, axis, part))

    device.parallel_for(work, device.chunks(shape[axis], y.nbytes // shape[axis], products >= SHARED_PRODUCT))
    return y
