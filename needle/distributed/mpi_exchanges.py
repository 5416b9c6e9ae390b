"""Arrays on their way by MPI for which an `Exchange` does too much, the small ones, or too little, those gathered."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from needle.backend import device_of, native, to_host
from needle.backend.communicator import Array
from needle.distributed.pieces import header_of

__all__ = ["Gathering", "Small", "messages"]

LARGEST_MESSAGE = 1 << 30  # bytes


class Small(NamedTuple):
    """Arrays of one shape and dtype that are small, and the opening of a call that sums them."""

    header: bytes
    message: list[Any]  # as mpi4py sends it
    terms: list[Any]  # by rank, where the array is in the opening of its call


class Gathering:
    """Arrays of all ranks that are being gathered; also the request that waits for them."""

    root = None

    def __init__(self, wait_until: Callable[[Callable[[], bool]], None], array: Array, whole_bytes: int) -> None:
        self.wait_until, self.array = wait_until, array
        shape: tuple[Any, ...] = ("any", *array.shape[1:]) if array.ndim else ()
        self.header = header_of("all_gather", shape, array.dtype, None)
        self.flat = np.ascontiguousarray(to_host(array), native(array.dtype)).reshape(-1)
        self.length = len(array) if array.ndim else 1
        self.is_whole = self.flat.nbytes <= whole_bytes
        self.left = 0
        self.lengths: list[int] = []
        self.flats: list[Any] = []
        self.results: list[Array] = []

    def make(self, length: int) -> Any:
        """A flat array for that of a rank of such a length."""
        return np.empty(length * prod(self.array.shape[1:]), self.flat.dtype)

    def finish(self) -> None:
        """Give the arrays of all ranks the shapes, the dtype and the device of this rank's."""
        for flat, length in zip(self.flats, self.lengths, strict=True):
            values = flat.reshape(length, *self.array.shape[1:]) if self.array.ndim else flat.reshape(())
            self.results.append(device_of(self.array).asarray(values, dtype=self.array.dtype))

    def wait(self) -> None:
        if self.left:
            self.wait_until(lambda: not self.left)


def messages(flat: Any) -> list[Any]:
    """Parts of an array that MPI can count in 32 bits."""
    limit = LARGEST_MESSAGE // flat.itemsize
    return [flat[start : start + limit] for start in range(0, flat.size, limit)]
