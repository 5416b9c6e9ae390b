"""Ranks as processes of one machine that exchange arrays through memory they share.

Each rank owns a ring of slots and a line of counters; only it writes to them, but all read them. An array goes through
the slots in pieces, each in three steps:

    post    copy my piece into my slot; count it in POSTED
    sum     once all have posted: add the pieces of all ranks in the order of the ranks; count it in SUMMED
    take    once all have summed: copy the sums of the others; count it in TAKEN

Of a piece from `tuning.SHARED_SUM_BYTES` on, each rank sums its share, and takes those of the others: its work does not
grow with the number of ranks. Smaller pieces are summed whole by every rank, so that nobody waits a second time. A slot
is used again once all have taken what was in it. Nobody ever waits within a step: `progress` takes all the steps that
are possible now, and every call begins with it, so what has been started goes on during later calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from needle import tuning
from needle.backend import native
from needle.backend.communicator import Array, Communicator, Request
from needle.distributed.pieces import (
    HEADER_BYTES,
    RETURNED,
    SMALL_KINDS,
    Exchange,
    Gathering,
    Piece,
    add,
    call_in,
    check_root,
    compare_calls,
    header_of,
    refuse_outside,
)
from needle.distributed.waiting import late, stopped, wait_until

__all__ = ["SharedMemoryCommunicator", "memory_bytes"]

SLOTS = 4  # of a rank: so many pieces can be under way
LINE_BYTES = 128  # between what two ranks write: processors fetch lines of cache in pairs
LENGTH_BYTES = 16  # of a slot: the length of an array that is gathered, before the array
POSTED, SUMMED, TAKEN, STATE = range(4)  # the counters of a rank
RUNNING, LEFT, FAILED = range(3)  # its states


def memory_bytes(size: int) -> int:
    """The bytes of memory, zero at first, that `size` ranks share."""
    return LINE_BYTES + size * (LINE_BYTES + SLOTS * (HEADER_BYTES + tuning.SHARED_SLOT_BYTES))


class Small(NamedTuple):
    """Arrays of one shape and dtype that are small: the header, and slot -> rank -> the slot as such an array."""

    header: bytes
    slots: list[list[Any]]


class SharedMemoryCommunicator(Communicator):
    """A rank whose arrays go through `memory`, `memory_bytes(size)` bytes that all ranks share.

    `failure(rank)` is called when that rank has failed, and returns the error to raise. A wait of more than `timeout`
    seconds raises TimeoutError. Only one thread may use a communicator.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        memory: Any,
        failure: Callable[[int], BaseException] = stopped,
        timeout: float | None = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.failure, self.timeout = failure, timeout
        self.stopped_by: int | None = None  # the rank that has failed, once this one knows
        whole = np.frombuffer(memory, "uint8")
        start = -whole.ctypes.data % LINE_BYTES
        slots_start = start + size * LINE_BYTES
        self._counters = whole[start:slots_start].data.cast("q")
        self._others = [
            [other * (LINE_BYTES // 8) + counter for other in range(size) if other != rank] for counter in range(4)
        ]  # counter -> where those of the others are
        self._own = rank * (LINE_BYTES // 8)
        entry = HEADER_BYTES + tuning.SHARED_SLOT_BYTES
        area = whole[slots_start : slots_start + size * SLOTS * entry].reshape(size, SLOTS, entry)
        self._headers = [[area[of, slot, :HEADER_BYTES].data for of in range(size)] for slot in range(SLOTS)]
        self._bytes = area[..., HEADER_BYTES:]
        self._lengths = [[self._bytes[of, slot, :8].data.cast("q") for of in range(size)] for slot in range(SLOTS)]
        self._views: dict[Any, list[list[Any]]] = {}  # dtype -> slot -> rank -> the slot as an array of it
        self._small: dict[Any, Small | None] = {}  # (shape, dtype) -> how to sum it at once, if it is small
        self._called = self._posted = self._summed = self._taken = 0  # pieces
        self._call = b""  # the header of the latest call
        self._to_post: deque[Piece] = deque()
        self._to_sum: deque[Piece] = deque()
        self._to_take: deque[Piece] = deque()
        self._lock = Lock()

    # ---- what a rank calls -------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, wire: str | None = None) -> None:
        if wire is None and self._called == self._taken and type(array) is np.ndarray and array.flags.writeable:
            kind = array.shape, array.dtype.char
            small = self._small[kind] if kind in self._small else self._find_small(kind, array)
            if small is not None:
                refuse_outside("all_reduce")
                self._sum_at_once(array, small)
                return
        self._start("all_reduce", array, wire=wire).wait()

    def start_all_reduce(self, array: Array, wire: str | None = None) -> Request:
        return self._start("all_reduce", array, wire=wire)

    def broadcast(self, array: Array, root: int = 0) -> None:
        check_root(root, self.size)
        self._start("broadcast", array, root).wait()

    def all_gather(self, array: Array) -> list[Array]:
        gathering = Gathering(self._wait, array, tuning.SHARED_SLOT_BYTES - LENGTH_BYTES)
        self._wait(lambda: self._called == self._taken)
        self._gather_at_once(gathering)
        for rank, flat in enumerate(gathering.flats):
            if flat.nbytes > gathering.whole_bytes:
                if rank == self.rank:
                    flat[:] = gathering.flat
                self.broadcast(flat, rank)
        gathering.finish()
        return gathering.results

    def leave(self) -> None:
        """Complete what has been started, and tell the others that this rank makes no further call."""
        self._wait(lambda: self._called == self._taken)
        self._order_memory()
        self._counters[self._own + STATE] = LEFT

    def fail(self) -> None:
        """Tell the others that this rank has failed: their next wait raises an error."""
        self._counters[self._own + STATE] = FAILED

    # ---- an array, piece by piece ------------------------------------------------------------------------------------

    def _start(self, kind: str, array: Array, root: int | None = None, wire: str | None = None) -> Exchange:
        """Queue the pieces of an array, and take the steps that are possible now."""
        exchange = Exchange(self._wait, kind, array, root, wire)
        length, limit = exchange.flat.size, tuning.SHARED_SLOT_BYTES // exchange.flat.itemsize
        starts = range(0, length, limit) if length > limit else (0,)
        try:
            self._to_post.extend(Piece(exchange, start, min(start + limit, length)) for start in starts)
            exchange.left = len(starts)
            self._called += exchange.left
            self._call = exchange.header
        except BaseException:
            self.fail()
            raise
        while self.progress() and self._to_post:
            pass
        return exchange

    def progress(self) -> bool:
        """Take all steps that are possible now; returns whether there was any."""
        if self._counters[self._own + STATE] == FAILED:
            self._check_others()
        moved = False
        try:
            while self._to_post and self._has_slot():
                self._post(self._to_post[0])
                moved = True
            while self._to_sum and self._reached(POSTED, self._summed + 1):
                self._sum(self._to_sum[0])
                moved = True
            while self._to_take and (self._to_take[0].is_whole or self._reached(SUMMED, self._taken + 1)):
                self._take(self._to_take[0])
                moved = True
        except BaseException:  # an interrupt, too: nobody knows what has been done
            self.fail()
            raise
        return moved

    def _post(self, piece: Piece) -> None:
        exchange, slot = piece.exchange, self._posted % SLOTS
        if piece.start == 0:
            self._headers[slot][self.rank][:] = exchange.header
        if exchange.root is None or exchange.root == self.rank:
            mine = self._slots(exchange.flat.dtype)[slot][self.rank]
            mine[: piece.length] = exchange.flat[piece.start : piece.stop]
        self._order_memory()
        self._posted += 1
        self._counters[self._own + POSTED] = self._posted
        self._to_sum.append(self._to_post.popleft())

    def _sum(self, piece: Piece) -> None:
        exchange, slot = piece.exchange, self._summed % SLOTS
        self._order_memory()
        if piece.start == 0:
            self._compare_calls(slot, exchange.header)
        slots = self._slots(exchange.flat.dtype)[slot]
        if exchange.root is not None:
            if exchange.root != self.rank:
                exchange.flat[piece.start : piece.stop] = slots[exchange.root][: piece.length]
        elif piece.is_whole:
            exchange.add([entry[: piece.length] for entry in slots], exchange.flat[piece.start : piece.stop])
        else:
            share = piece.share(self.rank, self.size)
            total = exchange.flat[piece.start : piece.stop][share]
            exchange.add([entry[share] for entry in slots], total)
            slots[self.rank][share] = total  # nobody else reads this share of this slot before it is summed
        if not piece.is_whole:
            self._order_memory()
        self._summed += 1
        self._counters[self._own + SUMMED] = self._summed
        self._to_take.append(self._to_sum.popleft())

    def _take(self, piece: Piece) -> None:
        exchange, slot = piece.exchange, self._taken % SLOTS
        if not piece.is_whole:
            self._order_memory()
            total = exchange.flat[piece.start : piece.stop]
            for rank, entry in enumerate(self._slots(exchange.flat.dtype)[slot]):
                if rank != self.rank:
                    share = piece.share(rank, self.size)
                    total[share] = entry[share]
        self._order_memory()
        self._taken += 1
        self._counters[self._own + TAKEN] = self._taken
        self._to_take.popleft()
        exchange.left -= 1
        if not exchange.left:
            exchange.finish()

    def _slots(self, dtype: Any) -> list[list[Any]]:
        """Slot -> rank -> the slot as an array of a dtype."""
        slots = self._views.get(dtype)
        if slots is None:
            usable = tuning.SHARED_SLOT_BYTES // dtype.itemsize * dtype.itemsize
            ranks = range(self.size)
            slots = [[self._bytes[rank, slot, :usable].view(dtype) for rank in ranks] for slot in range(SLOTS)]
            self._views[dtype] = slots
        return slots

    def _compare_calls(self, slot: int, header: bytes) -> None:
        """Raise CallsDiffer if another rank has made another call."""
        for rank in range(self.size):
            compare_calls(self.rank, header, rank, self._headers[slot][rank].tobytes())

    # ---- a small array at once ---------------------------------------------------------------------------------------

    def _find_small(self, kind: Any, array: Array) -> Small | None:
        """Prepare to sum arrays of that shape and dtype at once, if they are small."""
        small = None
        if array.nbytes < tuning.SHARED_SUM_BYTES:
            header, slots = header_of("all_reduce", array.shape, array.dtype, None), self._slots(native(array.dtype))
            small = Small(header, [[entry[: array.size].reshape(array.shape) for entry in ranks] for ranks in slots])
        if len(self._small) >= SMALL_KINDS:
            self._small.clear()
        self._small[kind] = small
        return small

    def _sum_at_once(self, array: Array, small: Small) -> None:
        """The three steps of `progress` for one piece, where nothing else is under way.

        The sum of a few hundred bytes takes 10 µs, by the other way 20.
        """
        slot = self._begin_at_once(small.header)
        entries = small.slots[slot]
        try:
            entries[self.rank][...] = array
            self._meet(slot, small.header)
            add(entries, array)
            self._end_at_once()
        except BaseException:
            self.fail()
            raise

    def _gather_at_once(self, gathering: Gathering) -> None:
        """The same for the arrays of all ranks: their lengths, and those that fit into a slot."""
        slot, mine = self._begin_at_once(gathering.header), gathering.flat
        lengths, entries, start = self._lengths[slot], self._slots(mine.dtype)[slot], LENGTH_BYTES // mine.itemsize
        try:
            lengths[self.rank][0] = gathering.length
            if gathering.is_whole:
                entries[self.rank][start : start + mine.size] = mine
            self._meet(slot, gathering.header)
            gathering.lengths = [length[0] for length in lengths]
            gathering.flats = [gathering.make(length) for length in gathering.lengths]
            for entry, flat in zip(entries, gathering.flats, strict=True):
                if flat.nbytes <= gathering.whole_bytes:
                    flat[:] = entry[start : start + flat.size]
            self._end_at_once()
        except BaseException:
            self.fail()
            raise

    def _begin_at_once(self, header: bytes) -> int:
        """Wait for the next slot; returns its number."""
        if self._counters[self._own + STATE] == FAILED:
            self._check_others()
        self._call = header
        free = self._called + 1 - SLOTS
        try:
            if not self._reached(TAKEN, free):
                self._wait(lambda: self._reached(TAKEN, free))
        except BaseException:
            self.fail()
            raise
        return self._called % SLOTS

    def _meet(self, slot: int, header: bytes) -> None:
        """Tell the others that this rank's array is in the slot, and wait until theirs are."""
        self._headers[slot][self.rank][:] = header
        self._order_memory()
        number = self._called = self._posted = self._counters[self._own + POSTED] = self._called + 1
        if not self._reached(POSTED, number):
            self._wait(lambda: self._reached(POSTED, number))
        self._order_memory()
        self._compare_calls(slot, header)

    def _end_at_once(self) -> None:
        """Tell the others that this rank has taken what it needs."""
        self._order_memory()
        self._summed = self._counters[self._own + SUMMED] = self._called
        self._taken = self._counters[self._own + TAKEN] = self._called

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Take steps until `is_done()`."""
        wait_until(is_done, self._go_on, self._check_others, self.timeout, self._too_late)

    def _too_late(self, seconds: float) -> BaseException:
        """The error of a wait that has taken so long: it names those who have not posted or summed a piece."""
        places = [place for place in self._others[POSTED] if self._counters[place] <= self._taken]
        deed = "come" if places else "go on"
        places = places or [place for place in self._others[SUMMED] if self._counters[place] <= self._taken]
        ranks = [place // (LINE_BYTES // 8) for place in places]
        return late(call_in(self._call), deed, ranks, seconds)

    def _go_on(self) -> bool:
        return self._called > self._taken and self.progress()

    def _has_slot(self) -> bool:
        """Whether all have taken what was in the next slot, this rank as well."""
        return self._posted - self._taken < SLOTS and self._reached(TAKEN, self._posted - SLOTS + 1)

    def _reached(self, counter: int, count: int) -> bool:
        """Whether that counter of every other rank has come to `count`."""
        for place in self._others[counter]:  # noqa: SIM110 (a generator takes twice as long)
            if self._counters[place] < count:
                return False
        return True

    def _check_others(self) -> None:
        """Raise an error if what this rank waits for will never come."""
        for rank in range(self.size):
            own = rank * (LINE_BYTES // 8)
            state = self._counters[own + STATE]
            if state == FAILED:
                self.stopped_by = rank
                error = self.failure(rank)
                raise error
            self._order_memory()
            if state == LEFT and self._counters[own + POSTED] < self._called:
                compare_calls(self.rank, self._call, rank, RETURNED)

    def _order_memory(self) -> None:
        """Let what this rank has read and written be done before all that follows, also on processors that reorder it.

        Taking a lock keeps what follows behind it, and giving it back what precedes before it: in this order they
        keep both.
        """
        self._lock.acquire()
        self._lock.release()
        self._lock.acquire()
        self._lock.release()
