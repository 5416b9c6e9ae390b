"""Matrix products of a convolution: one per group, and cut into sizes that BLAS multiplies fast."""

from __future__ import annotations

import math
from functools import lru_cache

from needle import tuning
from needle.backend import Device, device_of
from needle.kernels.layout import Array


def by_group(array: Array, groups: int) -> Array:
    """(A, …) -> (G, A/G, L): the first axis split into groups, all others flattened."""
    return array.reshape(groups, array.shape[0] // groups, math.prod(array.shape[1:]))


def grouped_matmul(a: Array, b: Array) -> Array:
    """(G, A, B), (G, B, L) -> (G, A, L). For B = 1 (depthwise) an outer product is twice as fast as NumPy's matmul."""
    return a * b if a.shape[2] == 1 else device_of(a).matmul(a, b)


def blocked_matmul(device: Device, a: Array, b: Array, out: Array) -> None:
    """a (G, 1, A, B) @ b (G, R, B, L) -> out (G, R, A, L), on the CPU by blocks of L or A that make small products."""
    (rows, terms), columns = a.shape[2:], b.shape[3]
    blocks = split_count(rows * terms, columns) if device.strided_gemm else 1
    parts = split_rows(rows, terms * columns) if device.strided_gemm and blocks == 1 else 1
    if parts > 1:
        a, b = a.reshape(*a.shape[:2], parts, rows // parts, terms), b[:, :, None]
        out = out.reshape(*out.shape[:2], parts, rows // parts, columns)
    elif blocks > 1:
        length = b.shape[3] // blocks
        b = b.reshape(*b.shape[:3], blocks, length).swapaxes(2, 3)  # (G, R, blocks, B, L/blocks)
        out = out.reshape(*out.shape[:3], blocks, length).swapaxes(2, 3)  # (G, R, blocks, A, L/blocks)
        a = a[:, :, None]  # (G, 1, 1, A, B)
    device.matmul(a, b, out=out)


@lru_cache(maxsize=4096)
def split_count(macs: int, length: int) -> int:
    """How many equal blocks to cut `length` columns into, for small products; a column costs `macs` multiplications."""
    longest = tuning.SMALL_GEMM_MACS // max(1, macs)
    is_short = length <= tuning.SMALL_GEMM_SHORT_ROW
    shortest = tuning.SMALL_GEMM_SHORT_MIN_COLUMNS if is_short else tuning.SMALL_GEMM_MIN_COLUMNS
    if not shortest <= longest < length:
        return 1
    counts = range(-(-length // longest), length // shortest + 1)
    return next((count for count in counts if length % count == 0), 1)


def split_rows(rows: int, macs: int) -> int:
    """How many equal blocks to cut rows into, for small products that read what the cache holds; a row costs `macs`."""
    most = tuning.SMALL_GEMM_MACS // max(1, macs)
    if rows <= most or macs > tuning.SMALL_GEMM_CACHED:
        return 1
    counts = range(2, rows // tuning.SMALL_GEMM_MIN_ROWS + 1)
    return next((count for count in counts if rows % count == 0 and rows // count <= most), 1)


def add_bias(y: Array, bias: Array | None) -> None:
    """Add a bias (O,), if there is one, to y (O, …) in place."""
    if bias is not None:
        y += bias.reshape(-1, *(1,) * (y.ndim - 1))
