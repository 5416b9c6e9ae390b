"""Arrays on their way between ranks: their pieces, the header that says what they belong to, their sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from needle import check, tuning
from needle.backend import compute_dtype, device_of, native, to_host, without_warnings
from needle.backend.communicator import Array, CallsDiffer
from needle.backend.device import find_device
from needle.backend.narrow import WIRES, narrow, widen
from needle.backend.recording import refuse

__all__ = [
    "HEADER_BYTES",
    "RETURNED",
    "SMALL_KINDS",
    "Exchange",
    "Gathering",
    "Piece",
    "add",
    "call_in",
    "check_root",
    "compare_calls",
    "header_of",
    "header_of_gathering",
    "messages",
    "readable",
    "refuse_outside",
]

HEADER_BYTES = 256  # of a slot: the text that says what the piece belongs to
RETURNED = b"return".ljust(HEADER_BYTES)  # of a rank that makes no further call
SMALL_KINDS = 256  # (shape, dtype) of small arrays that a rank remembers
LARGEST_MESSAGE = 1 << 30  # bytes: MPI counts them in 32 bits


class Piece:
    """The elements [start, stop) of an exchange's array."""

    __slots__ = ("exchange", "is_whole", "length", "start", "stop")

    def __init__(self, exchange: Exchange, start: int, stop: int) -> None:
        self.exchange, self.start, self.stop = exchange, start, stop
        self.length = stop - start
        # Whether every rank sums all of it.
        self.is_whole = exchange.root is not None or self.length * exchange.flat.itemsize < tuning.SHARED_SUM_BYTES

    def share(self, rank: int, size: int) -> slice:
        """The elements of the piece that a rank sums."""
        return slice(self.length * rank // size, self.length * (rank + 1) // size)


class Exchange:
    """An array under way, as a row of elements in this machine's byte order; also the request that waits for it.

    With a `wire` the row holds numbers of 16 bits.
    """

    __slots__ = ("array", "flat", "header", "is_copy", "left", "root", "wait_until", "wire")

    def __init__(
        self,
        wait_until: Callable[[Callable[[], bool]], None],
        kind: str,
        array: Array,
        root: int | None,
        wire: str | None = None,
    ) -> None:
        check_array(kind, array, is_written=True)
        dtype = array.dtype
        self.wait_until, self.array, self.root, self.wire = wait_until, array, root, wire
        self.header = header_of(kind, array.shape, dtype, root, wire)
        is_host = type(array) is np.ndarray
        if is_host and not array.flags.writeable:
            raise ValueError(f"{kind}: array must be writable, but got a read-only one of shape {array.shape}")
        self.is_copy = wire is not None or not (is_host and array.flags.c_contiguous and dtype.isnative)
        if wire is not None:
            self.flat = narrow(to_host(array), wire).reshape(-1)
        else:
            self.flat = (np.array(to_host(array), native(dtype), order="C") if self.is_copy else array).reshape(-1)
        self.left = 0  # pieces that are not complete

    def add(self, terms: list[Any], out: Any) -> None:
        """The sum of terms of such a row, as `add`."""
        if self.wire == "bfloat16":  # NumPy adds no such numbers
            total = widen(terms[0], self.wire)
            with without_warnings():
                for term in terms[1:]:
                    total += widen(term, self.wire)
            out[...] = narrow(total, self.wire)
        else:
            add(terms, out)

    def finish(self) -> None:
        """Write the result to where it belongs, if the pieces have gone elsewhere."""
        if self.is_copy:
            total = self.flat if self.wire is None else widen(self.flat, self.wire)
            with without_warnings():  # numbers of bfloat16 may be too large for float16
                self.array[...] = device_of(self.array).asarray(total.reshape(self.array.shape))

    def wait(self) -> None:
        if self.left:
            self.wait_until(lambda: not self.left)


class Gathering:
    """Arrays of all ranks that are being gathered; also the request that waits for them."""

    def __init__(self, wait_until: Callable[[Callable[[], bool]], None], array: Array, whole_bytes: int) -> None:
        check_array("all_gather", array)
        self.wait_until, self.array = wait_until, array
        self.header, self.length = header_of_gathering(array)
        self.flat = np.ascontiguousarray(to_host(array), native(array.dtype)).reshape(-1)
        self.whole_bytes = whole_bytes  # up to which an array goes whole
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
            self.results.append(device_of(self.array).asarray(values).astype(self.array.dtype, copy=False))

    def wait(self) -> None:
        if self.left:
            self.wait_until(lambda: not self.left)


def refuse_outside(kind: str) -> None:
    """Refuse a call that a recording does not hold: within a captured step, the current communicator is another one."""
    refuse(kind, "an exchange by a communicator from outside of the step")


def check_array(kind: str, array: Any, is_written: bool = False) -> None:
    """Raise TypeError unless it is a raw array; NumPy's numbers, as of `x.sum()`, cannot be written to."""
    refuse_outside(kind)
    if find_device(array) is None or (is_written and isinstance(array, np.generic)):
        got = type(array).__name__
        raise TypeError(f"{kind}: array must be a raw one, as tensor.array or np.array(number), but got {got}")


@lru_cache(maxsize=1024)
def header_of(kind: str, shape: tuple[int, ...], dtype: Any, root: int | None, wire: str | None = None) -> bytes:
    """What a call is, as text of `HEADER_BYTES`."""
    if dtype.kind not in "fiub":
        raise TypeError(f"{kind}: dtype must be one of real numbers or bools, but got {dtype}")
    text = f"{kind}{'' if root is None else f' from rank {root}'} of shape {shape} and dtype {native(dtype)}"
    if wire is not None:
        check.one_of(kind, "wire", wire, WIRES)
        if dtype.kind != "f":
            raise TypeError(f"{kind}: dtype must be one of floats for wire {wire!r}, but got {dtype}")
        text += f", sent as {wire}"
    return text.encode().ljust(HEADER_BYTES)[:HEADER_BYTES]


def header_of_gathering(array: Array) -> tuple[bytes, int]:
    """The header of a call that gathers such arrays, and the length of this one, which may be any."""
    shape: tuple[Any, ...] = ("any", *array.shape[1:]) if array.ndim else ()
    return header_of("all_gather", shape, array.dtype, None), len(array) if array.ndim else 1


def readable(header: bytes) -> str:
    """The text of a header."""
    return header.decode().strip()


def call_in(header: bytes) -> str:
    """The name of the call."""
    return readable(header).partition(" ")[0]


def check_root(root: int, size: int) -> None:
    if not 0 <= root < size:
        raise ValueError(f"broadcast: root must lie in [0, {size - 1}], but got {root}")


def compare_calls(rank: int, header: bytes, other_rank: int, other: bytes) -> None:
    """Raise CallsDiffer unless both ranks have made the same call."""
    if other != header:
        error = CallsDiffer(
            f"{call_in(header)}: all ranks must make the same calls, but rank {rank} {_deed(header)}, and rank "
            f"{other_rank} {_deed(other)}"
        )
        error.are_sums = all(text.startswith(b"all_reduce ") for text in (header, other))
        raise error


def _deed(header: bytes) -> str:
    return "has returned" if header == RETURNED else f"calls {readable(header)}"


def messages(flat: Any) -> list[Any]:
    """Parts of an array that are not too large for a message."""
    limit = LARGEST_MESSAGE // flat.itemsize
    return [flat[start : start + limit] for start in range(0, flat.size, limit)]


def add(terms: list[Any], out: Any) -> None:
    """The sum of arrays, in their order, which may change the first; of bools, whether one is True.

    `out` may be one of them.
    """
    dtype = compute_dtype(terms[0].dtype)
    with without_warnings():
        if dtype != terms[0].dtype:
            total = terms[0].astype(dtype)
            for term in terms[1:]:
                total += term
            out[...] = total
            return
        total = terms[0]
        for i, term in enumerate(terms[1:], 2):
            target = terms[0] if any(later is out for later in terms[i:]) else out
            total = np.add(total, term, out=target)
