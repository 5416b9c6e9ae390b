"""The message with which a call of ranks begins: its header, the length of the first axis, the array if it is small."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from needle.distributed.pieces import HEADER_BYTES, header_of

__all__ = ["NOTHING", "START", "Small", "content_in", "header_in", "length_in", "opening", "small_sum"]

START = HEADER_BYTES + 8  # where the array begins
NOTHING = np.empty(0, "uint8")


class Small(NamedTuple):
    """Arrays of one shape and dtype that are small, and the opening of a call that sums them."""

    header: bytes
    message: list[Any]  # as mpi4py sends it
    terms: list[Any]  # by rank, where the array is in the opening of its call


def opening(header: bytes, length: int, content: Any) -> Any:
    """The bytes of a message."""
    message = np.empty(START + content.nbytes, "uint8")
    message[:HEADER_BYTES] = np.frombuffer(header, "uint8")
    message[HEADER_BYTES:START].view("int64")[0] = length
    message[START:] = content.view("uint8")
    return message


def header_in(message: Any) -> bytes:
    return message[:HEADER_BYTES].tobytes()  # type: ignore[no-any-return]


def length_in(message: Any) -> int:
    return int(message[HEADER_BYTES:START].view("int64")[0])


def content_in(message: Any, like: Any) -> Any:
    """The array in a message, which is like a flat one of this rank."""
    return message[START : START + like.nbytes].view(like.dtype)


def small_sum(shape: tuple[int, ...], char: str, received: list[Any], rank: int, byte: Any) -> Small | None:
    """How to sum arrays of that shape and dtype at once, if they fit into the messages `received`, by rank.

    `byte` is MPI's type of what is sent.
    """
    dtype = np.dtype(char)
    if prod(shape) * dtype.itemsize > len(received[rank]) - START:
        return None
    header, content = header_of("all_reduce", shape, dtype, None), np.zeros(prod(shape), dtype)
    message = opening(header, 0, content)
    messages = [message if other == rank else theirs for other, theirs in enumerate(received)]
    return Small(header, [message, byte], [content_in(each, content).reshape(shape) for each in messages])
