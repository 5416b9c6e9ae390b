"""Recordings: the work that a function gives to a device, noted once and done again without the function's Python.

`device.record(function)` runs the function and returns a `Recording`; `replay` does the same work on the same memory.
What the host decides anew for each run lies in cells (`live`), which are filled before each replay. Work that needs the
host in another way cannot be recorded: it calls `refuse`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

__all__ = ["CannotRecord", "Cell", "Recorder", "Recording", "depend", "kept", "live", "noting", "recording", "refuse"]

Array: TypeAlias = Any  # a raw array of NumPy, CuPy or another registered library
Numbers: TypeAlias = Sequence[float]


class CannotRecord(RuntimeError):
    """Work that a recording cannot hold: the name of what asked for it, and the cause, a noun with its article."""

    def __init__(self, op: str, cause: str) -> None:
        super().__init__(f"{op}: recorded work must be the same without Python, but got {cause}")
        self.op, self.cause = op, cause


class Cell(NamedTuple):
    """A small array, and the function that computes the numbers in it before each replay."""

    array: Array
    compute: Callable[[], Numbers]


class Recorder(ABC):
    """What notes the work of this thread while a function runs; `with recorder:` makes it the one under way."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.cells: list[Cell] = []
        self.conditions: list[tuple[Callable[[], object], object]] = []  # what was asked, and the answer: see `depend`
        self.changed: dict[int, Any] = {}  # by id, the version counters of the memory that was written to

    @abstractmethod
    def new_cell(self, numbers: Numbers, dtype: Any) -> Array:
        """An array (k,) with these numbers, which stays as long as the recording."""

    def kept(self, array: Array) -> Array:
        """An array that outlives the run, as it must be used while this recorder is under way."""
        return array

    def holds(self) -> bool:
        """Whether the answers to all that the work depends on are still those of the recorded run."""
        return all(ask() is answer for ask, answer in self.conditions)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Let this recorder note the work of this thread until the block ends. Raises CannotRecord within another."""
        refuse("record", "a recording within another")
        try:
            noting.recorder = self
            yield
        finally:
            noting.recorder = None


class Recording(ABC):
    """Work that can be done again."""

    @abstractmethod
    def replay(self) -> None:
        """Fill the cells in the order of their making, then do the recorded work again, on the same memory."""


class _Noting(threading.local):
    recorder: Recorder | None = None


noting = _Noting()  # of this thread; `recording` is for callers that are not in a hurry


def recording() -> Recorder | None:
    """The recorder that is under way in this thread, or None."""
    return noting.recorder


def refuse(op: str, cause: str) -> None:
    """Raise CannotRecord if a recording is under way: `op` needs the host; `cause` says for what, with its article.

    >>> refuse("item", "a value read on the host")  # nothing is recorded here
    """
    if noting.recorder is not None:
        raise CannotRecord(op, cause)


def live(device: Any, compute: Callable[[], Numbers], dtype: Any) -> Array | None:
    """An array (k,) on a device that holds the k numbers of `compute()` now, and those of a new call in each replay.

    None if nothing is recorded; `compute` is not called then. Cells are filled before the replay, in the order of their
    making.
    """
    recorder = noting.recorder
    if recorder is None:
        return None
    if device != recorder.device:
        raise CannotRecord("live", f"a cell on {device!r} within a recording of {recorder.device!r}")
    cell = Cell(recorder.new_cell(compute(), dtype), compute)
    recorder.cells.append(cell)
    return cell.array


def depend(ask: Callable[[], object]) -> None:
    """Note, if a recording is under way, that it is good only as long as `ask()` returns the same object as now."""
    recorder = noting.recorder
    if recorder is not None:
        recorder.conditions.append((ask, ask()))


def kept(array: Array) -> Array:
    """An array that outlives a step and is not in a tensor, such as an optimizer's state, as a recording must see it.

    Writes to the result are writes to `array`. If nothing is recorded it is `array` itself.
    """
    recorder = noting.recorder
    return array if recorder is None else recorder.kept(array)
