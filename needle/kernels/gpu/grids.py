"""Launches over elements wherever they lie, and sums of all elements in one launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from needle import tuning
from needle.backend import Device, device_of
from needle.kernels.gpu.source import NULL, THREADS
from needle.kernels.layout import Array, is_compact
from needle.kernels.window import Size

__all__ = ["WARP", "in_order_of", "is_dense", "pieces", "scratch", "width_of"]

WARP = 32
MOST_THREADS = 1024


def width_of(*arrays: Array) -> int:
    """How many elements a thread takes at a time from arrays of one size: 4, if all are aligned so, or 1."""
    address = device_of(arrays[0]).address
    return 4 if all(array.size % 4 == 0 and address(array) % 16 == 0 for array in arrays) else 1


def is_dense(x: Array) -> bool:
    """Whether the elements of an array lie in memory without gaps, in any order of its axes."""
    return bool(x.flags.c_contiguous or _is_dense(x.shape, x.strides, x.itemsize))


@lru_cache(maxsize=1024)
def _is_dense(shape: Size, strides: Size, itemsize: int) -> bool:
    order = sorted(range(len(shape)), key=lambda axis: (strides[axis], shape[axis]), reverse=True)
    return is_compact(order, shape, strides, itemsize)


def in_order_of(x: Array, array: Array) -> Array:
    """An array of the shape and dtype of x in its memory order: itself, or a copy, in one launch."""
    if array.strides == x.strides:
        return array
    copy = device_of(x).xp.empty_like(x)
    copy[...] = array
    return copy


def pieces(count: int) -> tuple[Size, Size]:
    """Grid and block of threads that share `count` items and then add up what they have: one block for few items."""
    if count <= tuning.CUDA_ONE_BLOCK_ITEMS:
        return (1,), (min(MOST_THREADS, -(-count // WARP) * WARP),)
    return (min(tuning.CUDA_REDUCTION_BLOCKS, -(-count // THREADS)),), (THREADS,)


def scratch(device: Device, blocks: int) -> tuple[Any, Any]:
    """Two float64 for each block, and a ticket, 0 between launches: arguments of `grid_sums` in common.cu.

    Launches take turns with the ticket, so they must not run at the same time, on two streams.
    """
    if blocks == 1:
        return NULL, NULL
    return device.xp.empty(2 * blocks, "uint64"), _ticket(device)


@lru_cache(maxsize=16)
def _ticket(device: Device) -> Array:
    with device.current():
        return device.xp.zeros(1, "int32")
