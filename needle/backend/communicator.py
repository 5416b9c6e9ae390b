"""The ranks that compute one batch together: who they are, and what they exchange.

All ranks run the same program on the same state, each on its part of every batch. Sums over the ranks make them equal
again. An op that needs the whole batch asks for `current_communicator()`.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from needle.backend.device import xp

__all__ = ["Alone", "Communicator", "Part", "Request", "current_communicator", "using"]

Array: TypeAlias = Any  # a raw array of NumPy, CuPy or another registered library


class Part(NamedTuple):
    """The items [start, stop) of a batch of `total`."""

    start: int
    stop: int
    total: int

    @property
    def items(self) -> int:
        return self.stop - self.start

    @property
    def share(self) -> float:
        """The weight of the part's mean in the mean of the batch."""
        return self.items / self.total


class CallsDiffer(RuntimeError):
    """Two ranks have made different calls."""

    are_sums = False  # whether both are sums

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.add_note(
            "fit, evaluate, worker_batches, SharedGradients and Shard exchange, so all ranks must call them. What one "
            "does alone, as below `if communicator.rank == 0:`, belongs into `with using(Alone()):`."
        )


class Request(Protocol):
    """A sum that has begun."""

    def wait(self) -> None:
        """Return once the array holds the sum; may be repeated."""


class Communicator(ABC):
    """One of `size` ranks, numbered from 0, and what it exchanges with the others.

    All ranks must make the same calls in the same order, with arrays of the same shape and dtype: real numbers or
    bools, in any order of memory. Arrays are raw (NumPy's, CuPy's) and are changed in place.

    `join` yields one, and within it, or `launch`, `current_communicator()` returns it. While `worker_batches` gives a
    batch, `part` names the items of it that this rank computes: [`part.start`, `part.stop`) of `part.total`. It is None
    where that is all of them.
    """

    rank: int
    size: int
    part: Part | None = None
    divides: bool = False  # whether this rank has ever asked for its part of a batch
    shares_gradients: bool = False  # whether SharedGradients has ever exchanged those of a part
    stepped: Any = None  # a parameter that an optimizer has updated where that is not so

    @abstractmethod
    def all_reduce(self, array: Array, wire: str | None = None) -> None:
        """Replace an array by its sum over the ranks, added in the order of the ranks: the same bits on every rank.

        float16 is added in float32. A sum of bools is True where one of them is. Integers wrap around where their dtype
        cannot hold the sum, as in NumPy.

        With `wire`, "float16" or "bfloat16", floats travel in 16 bits: the array of each rank is rounded to such
        numbers, they are added in float32, and the sum is rounded again. What float16 cannot hold (from 65520 on)
        becomes infinite. Where there is one rank nothing is rounded.

        Raises TypeError for dtypes that cannot be added, or are not floats where there is a `wire`, ValueError for
        another `wire` and for read-only arrays.
        """

    def start_all_reduce(self, array: Array, wire: str | None = None) -> Request:
        """Begin `all_reduce`. Until `wait` of the result, the array must be neither read nor written."""
        self.all_reduce(array, wire)
        return _DONE

    def progress(self) -> bool:
        """Go on with the sums that have been started, as far as it needs no waiting; returns whether there was a step.

        A long computation between `start_all_reduce` and `wait` calls it now and then.
        """
        return False

    @abstractmethod
    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of the rank `root`."""

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.all_reduce(np.zeros((), "uint8"))

    def all_gather(self, array: Array) -> list[Array]:
        """Copies of the arrays of all ranks, by rank; their lengths along the first axis may differ."""
        lengths = np.zeros(self.size, "int64")
        lengths[self.rank] = len(array) if array.ndim else 1
        self.all_reduce(lengths)
        gathered = []
        for root, length in enumerate(lengths.tolist()):
            shape = (length, *array.shape[1:]) if array.ndim else ()
            entry = xp(array).empty(shape, array.dtype)
            if root == self.rank:
                entry[...] = array
            self.broadcast(entry, root)
            gathered.append(entry)
        return gathered

    def all_gather_object(self, value: Any) -> list[Any]:
        """Copies of what the ranks pass, by rank: anything that pickle copies. Raises what pickle raises.

        >>> Alone().all_gather_object({"items": 3})
        [{'items': 3}]
        """
        content = np.frombuffer(pickle.dumps(value), "uint8")
        return [pickle.loads(entry.tobytes()) for entry in self.all_gather(content)]

    def part_of(self, total: int) -> Part | None:
        """This rank's items of a batch of `total`, cut as `np.array_split` does: the first parts may be one longer.

        None if there is one rank, or fewer items than ranks: then every rank computes the whole batch.
        """
        self.divides = True
        if self.size == 1 or total < self.size:
            return None
        length, longer = divmod(total, self.size)
        start = self.rank * length + min(self.rank, longer)
        return Part(start, start + length + (self.rank < longer), total)


class _Done:
    """The request of a sum that is complete."""

    def wait(self) -> None:
        pass


_DONE = _Done()


class Alone(Communicator):
    """The only rank: there is nobody to exchange with."""

    rank, size = 0, 1

    def all_reduce(self, array: Array, wire: str | None = None) -> None:
        pass

    def broadcast(self, array: Array, root: int = 0) -> None:
        pass


DEFAULT = Alone()  # the communicator outside of `using`
_current: ContextVar[Communicator] = ContextVar("communicator", default=DEFAULT)


class _Told(NamedTuple):
    """What a rank tells the others in a call of `op`."""

    op: str
    value: Any


def gathered(op: str, communicator: Communicator, value: Any) -> list[Any]:
    """`all_gather_object(value)`, where all ranks must call `op`. Raises CallsDiffer unless they do."""
    told = communicator.all_gather_object(_Told(op, value))
    first, *others = (x.op if isinstance(x, _Told) else "all_gather_object" for x in told)
    for rank, other in enumerate(others, 1):
        if other != first:
            raise CallsDiffer(
                f"{op}: all ranks must make the same calls, but rank 0 calls {first}, and rank {rank} calls {other}"
            )
    return [x.value for x in told]


def require_alike(op: str, communicator: Communicator, values: Mapping[str, Any]) -> None:
    """Raise ValueError, on all ranks, if one of the values differs between them. They are what pickle copies."""
    if communicator.size == 1:
        return
    first, *others = gathered(op, communicator, dict(values))
    for rank, other in enumerate(others, 1):
        for name in first | other:
            theirs, ours = other.get(name, "none"), first.get(name, "none")
            if theirs != ours:
                raise ValueError(
                    f"{op}: all ranks must have the same {name}, but rank {rank} has {theirs}, and rank 0 has {ours}"
                )


def current_communicator() -> Communicator:
    """The communicator that this thread's ops use: an `Alone`, except within `using`.

    >>> communicator = current_communicator()
    >>> communicator.rank, communicator.size, communicator.part
    (0, 1, None)
    """
    return _current.get()


@contextmanager
def using(communicator: Communicator) -> Iterator[None]:
    """Let the ops of this thread use `communicator` until the block ends; other threads do not."""
    before = _current.get()
    try:
        try:
            _current.set(communicator)
            yield
        finally:
            _current.set(before)
    finally:  # once more: an interrupt may come before the line above
        _current.set(before)
