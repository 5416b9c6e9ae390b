"""What a captured step exchanges with other ranks: the same in each call, whether it runs, is replayed, or both.

Each rank decides for itself whether it replays a call, so each call must make the exchanges of the step once. Where a
step is replayed and runs, from the same state, the second time takes what came of the exchanges of the first.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NoReturn

from needle.backend import again, refuse
from needle.backend.communicator import Array, Communicator, Part, Request

__all__ = ["Exchanges", "ExchangesDiffer"]


class ExchangesDiffer(RuntimeError):
    """What a step exchanges has changed."""


class Entry:
    """An exchange that is made: what it is, what this rank sends, if that is to be compared, and what comes of it."""

    def __init__(self, call: tuple[Any, ...], sent: bytes | None) -> None:
        self.call, self.sent = call, sent
        self.result: Any = None


class Exchange:
    """An exchange of the step, made anew in each replay; also the request that waits for it."""

    entry: Entry | None = None  # while it is under way
    request: Request | None = None
    is_lost = False  # whether a replay that is taken back may leave something else in the array

    def __init__(self, exchanges: Exchanges, name: str, array: Array, option: Any = None) -> None:
        self.exchanges, self.name, self.option = exchanges, name, option
        self.array = array  # as the step has it: its memory serves nothing else meanwhile

    def lose(self) -> None:
        self.is_lost = True

    def protect(self) -> None:
        """Nothing else must come into the array while the exchange is under way."""
        if self in self.exchanges.under_way:
            refuse("Communicator", "an exchange under way of an array from before the step, while values decide")

    def make(self, array: Array) -> None:
        """Make it, and wait for what comes of it."""
        self.entry = self.exchanges.enter(self.name, array, self.option)
        if self.entry.result is None:
            getattr(self.exchanges.inner, self.name)(array, self.option)
        self.end(array)

    def start(self, array: Array) -> None:
        """Begin it."""
        self.entry = self.exchanges.enter(self.name, array, self.option)
        if self.entry.result is None:
            self.request = self.exchanges.inner.start_all_reduce(array, self.option)
            self.exchanges.under_way[self] = array

    def end(self, array: Array) -> None:
        """Wait for what comes of it; may be repeated."""
        if self.request is not None:
            self.request.wait()
            self.request = None
            del self.exchanges.under_way[self]
        entry, self.entry = self.entry, None
        if entry is None:
            return
        if entry.result is None:
            entry.result = array.copy() if self.is_lost or self.exchanges.compares else array
        else:
            array[...] = entry.result

    def gather(self, array: Array) -> list[Array]:
        """Gather the arrays of all ranks."""
        entry = self.exchanges.enter(self.name, array, self.option)
        if entry.result is None:
            entry.result = self.exchanges.inner.all_gather(array)
        return [one.copy() for one in entry.result]

    def wait(self) -> None:
        again(self.end, self.array, lost=self.lose)


def _of_inner(name: str) -> Any:
    """That attribute of `inner`, also when it is set."""
    return property(lambda self: getattr(self.inner, name), lambda self, value: setattr(self.inner, name, value))


class Exchanges(Communicator):
    """The communicator of a captured step: it makes the exchanges of `inner`, and knows what came of them."""

    part, divides, shares_gradients, stepped = map(_of_inner, ("part", "divides", "shares_gradients", "stepped"))

    def __init__(self, inner: Communicator) -> None:
        self.inner, self.rank, self.size = inner, inner.rank, inner.size
        self.under_way: dict[Exchange, Array] = {}
        self.begin()

    # ---- replays and runs --------------------------------------------------------------------------------------------

    def begin(self, compares: bool = False) -> None:
        """A replay begins, or a run, whose exchanges the next replay `compares` with its own."""
        self.compares, self.is_known = compares, False
        self.made: list[Entry] = []
        self.given: deque[Entry] = deque()

    def repeat(self, is_known: bool) -> None:
        """It is done again from the same state, with what came of the exchanges so far: all of them if `is_known`."""
        for exchange, array in [*self.under_way.items()]:
            exchange.end(array)
        self.given, self.made = deque(self.made), []
        self.compares, self.is_known = False, is_known

    def enter(self, name: str, array: Array, option: Any) -> Entry:
        """An exchange begins; it has a result if there is one already."""
        call = (name, array.shape, array.dtype, option)
        if self.given:
            entry = self.given.popleft()
            if entry.call != call or entry.sent not in (None, array.tobytes()):
                self._fail(entry.call, call)
        else:
            if self.is_known:
                self._fail(None, call)
            is_compared = self.compares and (name != "broadcast" or option == self.rank)
            entry = Entry(call, array.tobytes() if is_compared else None)
            self.made.append(entry)
        return entry

    def end(self) -> None:
        """The run or the replay that takes what is known has ended."""
        if self.given:
            self._fail(self.given[0].call, None)
        self.begin()

    def _fail(self, before: Any, now: Any) -> NoReturn:
        texts = ["nothing" if call is None else f"{call[0]} of shape {call[1]}" for call in (before, now)]
        raise ExchangesDiffer(
            f"capture: a step must exchange the same when it is done again from the same state, but first calls "
            f"{texts[0]}, then {texts[1]}"
        )

    # ---- what a rank calls -------------------------------------------------------------------------------------------

    def part_of(self, total: int) -> Part | None:
        return self.inner.part_of(total)

    def all_reduce(self, array: Array, wire: str | None = None) -> None:
        self._make("all_reduce", array, wire)

    def broadcast(self, array: Array, root: int = 0) -> None:
        self._make("broadcast", array, root)

    def _make(self, name: str, array: Array, option: Any) -> None:
        exchange = Exchange(self, name, array, option)
        again(exchange.make, array, lost=exchange.lose)

    def start_all_reduce(self, array: Array, wire: str | None = None) -> Request:
        exchange = Exchange(self, "start_all_reduce", array, wire)
        again(exchange.start, array, lost=exchange.protect)
        return exchange

    def all_gather(self, array: Array) -> list[Array]:
        gathered: list[Array] = again(Exchange(self, "all_gather", array).gather, array)
        if any(one.shape != array.shape for one in gathered):
            refuse("Communicator", "an exchange of arrays of several lengths")
        return gathered

    def progress(self) -> bool:
        return bool(again(self.inner.progress))
