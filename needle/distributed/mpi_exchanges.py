"""Arrays on their way by MPI for which an `Exchange` does too much, the small ones, or too little."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Small", "messages"]

LARGEST_MESSAGE = 1 << 30  # bytes


class Small(NamedTuple):
    """Arrays of one shape and dtype that are small, and the opening of a call that sums them."""

    header: bytes
    message: list[Any]  # as mpi4py sends it
    terms: list[Any]  # by rank, where the array is in the opening of its call


def messages(flat: Any) -> list[Any]:
    """Parts of an array that MPI can count in 32 bits."""
    limit = LARGEST_MESSAGE // flat.itemsize
    return [flat[start : start + limit] for start in range(0, flat.size, limit)]
