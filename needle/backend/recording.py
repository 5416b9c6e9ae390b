"""Recordings: the work that a function gives to a device, noted once and done again without the function's Python.

`device.record(function)` runs the function and returns a `Recording`; `replay` does the same work on the same memory.
What the host decides anew for each run lies in cells (`live`), which are filled before each replay. Work that needs the
host in another way cannot be recorded: it calls `refuse`.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "CannotRecord", "Cell", "Eager", "Missed", "Recorder", "Recording", "again", "aside", "asked", "depend", "drawn",
    "kept", "live", "no_gradient", "noting", "recording", "refuse", "with_choices", "within",
]  # fmt: skip

_SOURCES = os.path.dirname(os.path.dirname(__file__)) + os.sep
Array: TypeAlias = Any  # a raw array of NumPy, CuPy or another registered library
Numbers: TypeAlias = Sequence[float]


class CannotRecord(RuntimeError):
    """Work that a recording cannot hold: the name of what asked for it, and the cause, a noun with its article.

    `is_done` tells whether the function has run to its end, eagerly; else nothing has been computed but the `numbers`
    of its cells.
    """

    def __init__(self, op: str, cause: str) -> None:
        super().__init__(f"{op}: recorded work must be the same without Python, but got {cause}")
        self.op, self.cause = op, cause
        self.place = calling_place() if noting.recorder is not None else ""
        self.is_done = False
        self.numbers: list[Numbers] = []


def calling_place() -> str:
    """The innermost line outside of needle, in brackets."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SOURCES):
        frame = frame.f_back
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})"


class Missed(Exception):
    """A replay has ended, and left no trace, since a value would have led the function elsewhere.

    `asker` is the function of needle that asks for it; `numbers` are those of the cells, as far as they were computed.
    """

    def __init__(self, asker: str) -> None:
        super().__init__(asker)
        self.asker = asker
        self.numbers: list[Numbers] = []


class Cell(NamedTuple):
    """A small array, and the function that computes the numbers in it before each replay."""

    array: Array
    compute: Callable[[], Numbers]


class Recorder(ABC):
    """What notes the work of this thread while a function runs; `with recorder:` makes it the one under way."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.cells: list[Cell] = []
        self.numbers: list[Numbers] = []  # in the cells, as the function ran
        self.conditions: list[tuple[Callable[[], object], object]] = []  # what was asked, and the answer: see `depend`
        self.bare: list[Any] = []  # values that had no gradient when one was asked for: see `no_gradient`
        self.changed: dict[int, Any] = {}  # by id, the version counters of the memory that was written to

    @abstractmethod
    def new_cell(self, numbers: Numbers, dtype: Any) -> Array:
        """An array (k,) with these numbers, which stays as long as the recording."""

    def kept(self, array: Array) -> Array:
        """An array that outlives the run, as it must be used while this recorder is under way."""
        return array

    def released(self, array: Array) -> Array:
        """An array of this recorder as it is used after the run."""
        return array

    def live(self, device: Any, compute: Callable[[], Numbers], dtype: Any) -> Array:
        """See the function `live`."""
        if device != self.device:
            raise CannotRecord("live", f"a cell on {device!r} within a recording of {self.device!r}")
        numbers = compute()
        cell = Cell(self.new_cell(numbers, dtype), compute)
        self.numbers.append(numbers)
        self.cells.append(cell)
        return cell.array

    def drawn(self, draw: Callable[[], Array]) -> Array:
        """The result of `draw`, an array of numbers from NumPy's stream."""
        self.refuse("random", "numbers drawn on the host")
        return draw()

    def with_choices(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """See the function `with_choices`."""
        return function(*args)

    def again(self, call: Callable[..., Any], args: tuple[Any, ...], lost: Callable[[], object]) -> Any:
        """See the function `again`."""
        self.refuse("Communicator", "an exchange between ranks")
        return call(*args)

    def within(self, context: Callable[[], AbstractContextManager[Any]], function: Callable[[], Any]) -> Any:
        """See the function `within`."""
        with context():
            return function()

    def asked(self, array: Array) -> Array:
        """See the function `asked`."""
        return array

    def refuse(self, op: str, cause: str) -> None:
        """See the function `refuse`."""
        raise CannotRecord(op, cause)

    def holds(self) -> bool:
        """Whether the answers to all that the work depends on are still those of the recorded run."""
        return all(ask() is answer for ask, answer in self.conditions)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Let this recorder note the work of this thread until the block ends. Raises CannotRecord within another."""
        if noting.recorder is not None:
            raise CannotRecord("record", "a recording within another")
        try:
            noting.recorder = self
            yield
        except CannotRecord as error:
            error.numbers = self.numbers
            raise
        finally:
            noting.recorder = None


class Eager(Recorder):
    """Notes the numbers of cells alone: the function runs eagerly. Cells take the `given` numbers, as long as some are.

    It runs a step whose numbers have been computed already, or shall be known.
    """

    def __init__(self, device: Any, given: Sequence[Numbers] = ()) -> None:
        super().__init__(device)
        self.given = [*given]

    def new_cell(self, numbers: Numbers, dtype: Any) -> Array:
        return self.device.asarray(numbers, dtype)

    def live(self, device: Any, compute: Callable[[], Numbers], dtype: Any) -> Array:
        if self.given:
            compute = partial(self.given.pop, 0)
        return super().live(device, compute, dtype)

    def drawn(self, draw: Callable[[], Array]) -> Array:
        return draw()

    def refuse(self, op: str, cause: str) -> None:
        pass


class Recording(ABC):
    """Work that can be done again."""

    recorder: Any  # what has noted it
    is_exact = True  # whether a replay is known to do what the function did; else `compare` must tell

    @abstractmethod
    def replay(self) -> None:
        """Fill the cells in the order of their making, and do the recorded work again, on the same memory.

        Raises Missed, with nothing changed but the cells' numbers, if a value would have led the function elsewhere.
        """

    def compare(self, run: Callable[[], list[Array]], results: Callable[[], list[Array]]) -> bool:
        """Whether a replay does what `run` does: all arrays are equal to the bit. Raises Missed as `replay` does.

        `run`, the function run eagerly, returns its results, `results` those of the replay. What `run` has done stays.
        """
        raise NotImplementedError(f"{type(self).__name__}: compare is not defined")


class _Noting(threading.local):
    recorder: Recorder | None = None


noting = _Noting()  # of this thread; `recording` is for callers that are not in a hurry


def recording() -> Recorder | None:
    """The recorder that is under way in this thread, or None."""
    return noting.recorder


def refuse(op: str, cause: str) -> None:
    """Tell a recording under way that `op` needs the host; `cause` says for what, with its article.

    It raises CannotRecord, here or at its end.

    >>> refuse("item", "a value read on the host")  # nothing is recorded here
    """
    if noting.recorder is not None:
        noting.recorder.refuse(op, cause)


def live(device: Any, compute: Callable[[], Numbers], dtype: Any) -> Array | None:
    """An array (k,) on a device that holds the k numbers of `compute()` now, and those of a new call in each replay.

    None if nothing is recorded; `compute` is not called then. Cells are filled before the replay, in the order of their
    making.
    """
    recorder = noting.recorder
    return None if recorder is None else recorder.live(device, compute, dtype)


def drawn(draw: Callable[[], Array]) -> Array:
    """The result of `draw`, an array of numbers from NumPy's stream, which each replay draws anew."""
    recorder = noting.recorder
    return draw() if recorder is None else recorder.drawn(draw)


def with_choices(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`: a tuple of arrays, or None among them, which it makes or writes over; none views another.

    Values decide how it computes them. Where they decide otherwise in a replay, the function is called.
    """
    recorder = noting.recorder
    return function(*args) if recorder is None else recorder.with_choices(function, args)


def again(call: Callable[..., Any], *args: Any, lost: Callable[[], object] = bool) -> Any:
    """`call(*args)`, which each replay calls again: it writes into the arrays in `args`, or returns a list of others.

    `lost()` is called while the work is recorded if a replay that is taken back may leave something else in the arrays.
    """
    recorder = noting.recorder
    return call(*args) if recorder is None else recorder.again(call, args, lost)


@contextmanager
def aside() -> Iterator[None]:
    """Let nothing that this thread does in the block be noted or refused."""
    recorder, noting.recorder = noting.recorder, None
    try:
        yield
    finally:
        noting.recorder = recorder


def within(context: Callable[[], AbstractContextManager[Any]], function: Callable[[], Any]) -> Any:
    """`function()` in the block `with context():`, as its work is done in each replay."""
    if noting.recorder is not None:
        return noting.recorder.within(context, function)
    with context():
        return function()


def asked(array: Array) -> Array:
    """An array whose values the host reads: a replay that finds others is taken back."""
    recorder = noting.recorder
    return array if recorder is None else recorder.asked(array)


def depend(ask: Callable[[], object]) -> None:
    """Note, if a recording is under way, that it is good only as long as `ask()` returns the same object as now."""
    recorder = noting.recorder
    if recorder is not None:
        recorder.conditions.append((ask, ask()))


def no_gradient(value: Any) -> None:
    """Note, if a recording is under way, that work depends on a value, a tensor's, having no gradient now."""
    recorder = noting.recorder
    if recorder is not None:
        recorder.bare.append(value)


def kept(array: Array) -> Array:
    """An array that outlives a step and is not in a tensor, such as an optimizer's state, as a recording must see it.

    Writes to the result are writes to `array`. If nothing is recorded it is `array` itself.
    """
    recorder = noting.recorder
    return array if recorder is None else recorder.kept(array)
