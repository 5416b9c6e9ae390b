"""Ranks as processes of one or several machines that exchange arrays by messages of MPI.

Only bytes cross MPI, and MPI adds nothing: what its reductions make of orders of memory, bools, float16 and NaN differs
from NumPy, and their order of summation from MPI to MPI. So sums have the bits of `SharedMemoryCommunicator`.

Each call begins with a message from each rank to each other, the opening: the text that says what is called, and the
array, if it is small. Every rank then adds the arrays of all. A larger array follows in pieces, each in three steps:

    post    send each other rank its share of my piece; that needs no opening
    sum     once the openings and my share have come from all: add the terms in the order of the ranks, send all the sum
    take    once the shares of the others have come: the piece is done

That is 2 (n - 1) / n of the array's bytes from each rank, the least possible (Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", 2009). Nobody ever waits within a step: `progress` takes all the
steps that are possible now, and every call begins with it, so what has been started goes on during later calls.
Messages of one tag between two ranks arrive in the order in which they were sent, and all ranks take the pieces in the
same order; so a message needs no number.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from needle import tuning
from needle.backend.communicator import Array, Communicator, Request
from needle.backend.cuda_device import CudaDevice
from needle.backend.device import find_device
from needle.distributed.nccl import GpuExchange, GpuExchanges, GpuGathering, connected
from needle.distributed.openings import NOTHING, START, Small, content_in, header_in, length_in, opening, small_sum
from needle.distributed.pieces import (
    RETURNED,
    SMALL_KINDS,
    Exchange,
    Gathering,
    Piece,
    add,
    call_in,
    check_root,
    compare_calls,
    messages,
)
from needle.distributed.waiting import late, no_rank, stopped, wait_until

__all__ = ["MpiCommunicator"]

OPENING, TERM, SUM, GATHERED, FAILURE = range(1, 6)  # the tags of messages
FAREWELL = 0.2  # seconds to wait until the others have been told that this rank has failed
SLACK = 64  # bytes by which a share of a piece may exceed tuning.MPI_SHARE_BYTES: two elements of any dtype fit


class MpiCommunicator(Communicator):
    """A rank of `comm`, an intracommunicator of mpi4py; all of its processes must make one.

    `failure(rank)` is called when that rank has failed, and returns the error to raise. A wait of more than `timeout`
    seconds raises TimeoutError. Only one thread may use a communicator.
    """

    def __init__(
        self, comm: Any, failure: Callable[[int], BaseException] = stopped, timeout: float | None = None
    ) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._comm = comm.Dup()  # its messages are ours alone
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.failure, self.timeout = failure, timeout
        self.stopped_by: int | None = None  # the rank that has failed, once this one knows
        self._others = [rank for rank in range(self.size) if rank != self.rank]
        self._whole_bytes = tuning.MPI_PAIR_BYTES if self.size == 2 else tuning.MPI_WHOLE_BYTES // max(1, self.size - 1)
        self._openings = [np.empty(START + self._whole_bytes, "uint8") for _ in range(self.size)]  # by rank
        self._receiving = [
            self._comm.Recv_init([self._openings[rank], MPI.BYTE], rank, OPENING) for rank in self._others
        ]
        self._gpus: dict[CudaDevice, GpuExchanges | None] = {}  # None: arrays go through the host
        self.has_failed = False  # all calls raise an error
        self._called = self._opened = 0  # calls; but small sums at once
        self._under_way = 0  # calls that are not complete
        self._small: dict[Any, Small | None] = {}  # (shape, dtype) -> how to sum it at once, if it is small
        self._to_open: deque[tuple[Any, Callable[[Any], None]]] = deque()  # calls whose openings have not come from all
        self._to_send: deque[tuple[list[Any], Any, Any]] = deque()  # openings: requests, bytes, what they open
        self._to_post: deque[tuple[int, Piece]] = deque()  # number of the call, piece
        self._to_sum: deque[tuple[int, list[Any], Piece, list[Any]]] = deque()  # …, requests, …, terms by rank
        self._to_take: deque[tuple[list[Any], Any]] = deque()  # requests, what they complete
        MPI.Prequest.Startall(self._receiving)

    # ---- what a rank calls -------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, wire: str | None = None) -> None:
        if wire is None and not self._under_way and type(array) is np.ndarray and array.flags.writeable:
            kind = array.shape, array.dtype.char
            small = self._small[kind] if kind in self._small else self._find_small(*kind)
            if small is not None:
                self._sum_at_once(array, small)
                return
        self.start_all_reduce(array, wire).wait()

    def start_all_reduce(self, array: Array, wire: str | None = None) -> Request:
        if gpu := self._gpu_of(array):
            on_gpu = GpuExchange(gpu, "all_reduce", array, None, wire)
            self._start(on_gpu, NOTHING, gpu.launch)
            return on_gpu
        exchange = Exchange(self._wait, "all_reduce", array, None, wire if self.size > 1 else None)
        self._send_array(exchange, exchange.flat, self._sum_whole)
        return exchange

    def broadcast(self, array: Array, root: int = 0) -> None:
        check_root(root, self.size)
        if gpu := self._gpu_of(array):
            self._start(GpuExchange(gpu, "broadcast", array, root), NOTHING, gpu.launch).wait()
            return
        exchange = Exchange(self._wait, "broadcast", array, root)
        self._send_array(exchange, exchange.flat if root == self.rank else NOTHING, self._take_whole).wait()

    def barrier(self) -> None:
        self._start(Exchange(self._wait, "barrier", NOTHING, None), NOTHING, _do_nothing).wait()

    def leave(self) -> None:
        """Complete what has been started, and wait until no rank makes a further call.

        Raises CallsDiffer if one does.
        """
        exchange = Exchange(self._wait, "return", NOTHING, None)
        exchange.header = RETURNED
        self._start(exchange, NOTHING, _do_nothing).wait()
        self._wait(lambda: not self._under_way)
        for gpu in filter(None, self._gpus.values()):
            gpu.close()
        self._gpus.clear()
        for request in self._receiving:
            request.Free()
        self._receiving.clear()
        self._comm.Free()
        self.has_failed, self.failure = True, no_rank

    def fail(self) -> None:
        """Tell the others that this rank has failed: their next wait raises an error."""
        if self.has_failed or not self._receiving:
            return
        self.has_failed = True
        for gpu in filter(None, self._gpus.values()):
            gpu.abort()
        requests = [self._comm.Isend([b"", self._mpi.BYTE], rank, FAILURE) for rank in self._others]
        end = time.monotonic() + FAREWELL
        while not self._are_done(requests) and time.monotonic() < end:
            time.sleep(1e-3)

    def progress(self) -> bool:
        """Take all steps that are possible now; returns whether there was any."""
        if not (self._under_way or self._gpus):
            return False
        if self.has_failed:
            self._check_others()
        moved = False
        try:
            while self._to_open and self._are_done(self._receiving):
                self._open(*self._to_open.popleft())
                moved = True
            while self._to_send and self._are_done(self._to_send[0][0]):
                self._has_done_part(self._to_send.popleft()[2])
                moved = True
            while self._to_post and len(self._to_sum) + len(self._to_take) < tuning.MPI_PIECES:
                self._post(*self._to_post.popleft())
                moved = True
            while self._to_sum and self._to_sum[0][0] <= self._opened and self._are_done(self._to_sum[0][1]):
                self._sum(*self._to_sum.popleft()[2:])
                moved = True
            while self._to_take and self._are_done(self._to_take[0][0]):
                self._has_done_part(self._to_take.popleft()[1])
                moved = True
            for gpu in filter(None, self._gpus.values()):
                moved |= gpu.progress()
        except BaseException:  # an interrupt, too: nobody knows what has been done
            self.fail()
            raise
        return moved

    def all_gather(self, array: Array) -> list[Array]:
        if gpu := self._gpu_of(array):
            opening = GpuGathering(array)
            self._start(opening, NOTHING, self._take_lengths)
            self._wait(lambda: not opening.left)
            return gpu.gather(array, opening.lengths)
        gathering = Gathering(self._wait, array, self._whole_bytes)
        self._start(gathering, gathering.flat if gathering.is_whole else NOTHING, self._gather).wait()
        return gathering.results

    # ---- arrays of GPUs ----------------------------------------------------------------------------------------------

    def _gpu_of(self, array: Array) -> GpuExchanges | None:
        """What exchanges this array by NCCL; None if it goes through the host."""
        if type(array) is np.ndarray or self.size == 1:
            return None
        device = find_device(array)
        if not isinstance(device, CudaDevice):
            return None
        if device not in self._gpus:
            self._gpus[device] = connected(self, self._wait, device)
        return self._gpus[device]

    # ---- openings ----------------------------------------------------------------------------------------------------

    def _start(self, exchange: Any, content: Any, then: Callable[[Any], None], pieces: Sequence[Piece] = ()) -> Any:
        """Send the opening of a call with `content`; `then(exchange)` goes on once the openings of all are here."""
        if self.has_failed:
            self._check_others()
        try:
            message = opening(exchange.header, getattr(exchange, "length", 0), content)
            exchange.left += 2 + len(pieces)
            self._called += 1
            self._to_post.extend((self._called, piece) for piece in pieces)
            self._under_way += 1
            requests = [self._comm.Isend([message, self._mpi.BYTE], rank, OPENING) for rank in self._others]
            self._to_send.append((requests, message, exchange))
            self._to_open.append((exchange, then))
        except BaseException:
            self.fail()
            raise
        self.progress()
        return exchange

    def _open(self, exchange: Any, then: Callable[[Any], None]) -> None:
        self._compare_calls(exchange.header)
        self._opened += 1
        then(exchange)
        if exchange.header is not RETURNED:
            self._mpi.Prequest.Startall(self._receiving)
        self._has_done_part(exchange)

    def _compare_calls(self, header: bytes) -> None:
        """Raise CallsDiffer if another rank has made another call."""
        for rank in self._others:
            compare_calls(self.rank, header, rank, header_in(self._openings[rank]))

    def _sum_whole(self, exchange: Exchange) -> None:
        flat = exchange.flat
        terms = [content_in(opening, flat) for opening in self._openings]
        terms[self.rank] = flat
        exchange.add(terms, flat)

    def _take_whole(self, exchange: Exchange) -> None:
        assert exchange.root is not None
        if exchange.root != self.rank:
            exchange.flat[:] = content_in(self._openings[exchange.root], exchange.flat)

    def _has_done_part(self, exchange: Any) -> None:
        exchange.left -= 1
        if not exchange.left:
            exchange.finish()
            self._under_way -= 1

    # ---- a small array at once ---------------------------------------------------------------------------------------

    def _find_small(self, shape: tuple[int, ...], char: str) -> Small | None:
        """Prepare to sum arrays of that shape and dtype at once, if they are small."""
        small = small_sum(shape, char, self._openings, self.rank, self._mpi.BYTE) if self.size > 1 else None
        if len(self._small) >= SMALL_KINDS:
            self._small.clear()
        self._small[shape, char] = small
        return small

    def _sum_at_once(self, array: Array, small: Small) -> None:
        """Open the call and add what the openings hold, where nothing else is under way: that takes half the time."""
        if self.has_failed:
            self._check_others()
        try:
            small.terms[self.rank][...] = array
            sending = [self._comm.Isend(small.message, rank, OPENING) for rank in self._others]
            if not self._are_done(self._receiving):
                self._wait(lambda: self._are_done(self._receiving), self._receiving)
            self._compare_calls(small.header)
            add(small.terms, array)
            self._mpi.Prequest.Startall(self._receiving)
            if not self._are_done(sending):
                self._wait(lambda: self._are_done(sending), sending)
        except BaseException:
            self.fail()
            raise

    # ---- large arrays, piece by piece --------------------------------------------------------------------------------

    def _send_array(self, exchange: Exchange, content: Any, then: Callable[[Any], None]) -> Any:
        """Open a call with `content`, and go on by `then`; but queue the pieces of a large array."""
        if exchange.flat.nbytes <= self._whole_bytes:
            return self._start(exchange, content, then)
        length = exchange.flat.size
        count = -(-exchange.flat.nbytes // (tuning.MPI_SHARE_BYTES * self.size))
        ends = [length * i // count for i in range(count + 1)]
        return self._start(exchange, NOTHING, _do_nothing, [Piece(exchange, *piece) for piece in pairwise(ends)])

    def _post(self, call: int, piece: Piece) -> None:
        exchange, root = piece.exchange, piece.exchange.root
        flat = exchange.flat[piece.start : piece.stop]
        mine = flat[piece.share(self.rank, self.size)]
        terms, requests = [], []
        for rank in range(self.size) if root is None else (root,):
            if rank == self.rank:
                terms.append(mine)
                continue
            # Another call may have longer shares, which Open MPI 5.0.11 would write to memory behind the array.
            room = np.empty(tuning.MPI_SHARE_BYTES + SLACK, "uint8")
            requests.append(self._receive(room, rank, TERM))
            terms.append(room[: mine.nbytes].view(mine.dtype))
        if root in (None, self.rank):
            requests += [self._send(flat[piece.share(rank, self.size)], rank, TERM) for rank in self._others]
        self._to_sum.append((call, requests, piece, terms))

    def _sum(self, piece: Piece, terms: list[Any]) -> None:
        exchange, root = piece.exchange, piece.exchange.root
        flat = exchange.flat[piece.start : piece.stop]
        mine = terms[self.rank] if root is None else flat[piece.share(self.rank, self.size)]
        is_root, requests = root == self.rank, []
        if root is None:
            exchange.add(terms, mine)
        elif not is_root:
            mine[:] = terms[0]
        if not is_root:
            requests = [self._receive(flat[piece.share(rank, self.size)], rank, SUM) for rank in self._others]
        requests += [self._send(mine, rank, SUM) for rank in self._others if rank != root]
        self._to_take.append((requests, piece.exchange))

    def _take_lengths(self, gathering: Gathering | GpuGathering) -> None:
        gathering.lengths = [gathering.length] * self.size
        for rank in self._others:
            gathering.lengths[rank] = length_in(self._openings[rank])

    def _gather(self, gathering: Gathering) -> None:
        """Take the small arrays from the openings, and begin to receive the others."""
        self._take_lengths(gathering)
        gathering.flats = [gathering.make(length) for length in gathering.lengths]
        requests = []
        for rank in self._others:
            flat = gathering.flats[rank]
            if flat.nbytes <= self._whole_bytes:
                flat[:] = content_in(self._openings[rank], flat)
            else:
                requests += [self._receive(part, rank, GATHERED) for part in messages(flat)]
            if not gathering.is_whole:
                requests += [self._send(part, rank, GATHERED) for part in messages(gathering.flat)]
        gathering.flats[self.rank][:] = gathering.flat
        self._to_take.append((requests, gathering))
        gathering.left += 1

    def _send(self, part: Any, rank: int, tag: int) -> Any:
        return self._comm.Isend([part.view("uint8"), self._mpi.BYTE], rank, tag)

    def _receive(self, part: Any, rank: int, tag: int) -> Any:
        return self._comm.Irecv([part.view("uint8"), self._mpi.BYTE], rank, tag)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def _are_done(self, requests: list[Any]) -> bool:
        return bool(self._mpi.Request.Testall(requests))

    def _wait(self, is_done: Callable[[], bool], requests: Sequence[Any] = ()) -> None:
        """Take steps until `is_done()`; all `requests` must be, one for each other rank."""
        wait_until(
            is_done, self.progress, self._check_others, self.timeout, lambda seconds: self._too_late(seconds, requests)
        )

    def _too_late(self, seconds: float, requests: Sequence[Any]) -> BaseException:
        """The error of a wait that has taken so long: it names the others whose request is not done."""
        call, deed = "all_reduce", "come"
        if self._to_open:
            call, requests = call_in(self._to_open[0][0].header), self._receiving
        elif self._to_sum:
            _, requests, piece, _ = self._to_sum[0]
            deed, requests = "go on", requests if piece.exchange.root is None else ()
        elif self._to_take:
            deed = "go on"
        ranks = [rank for rank, request in zip(self._others, requests, strict=False) if not request.Test()]
        return late(call, deed, ranks, seconds)

    def _check_others(self) -> None:
        """Raise an error if what this rank waits for will never come."""
        if self.has_failed:
            error = self.failure(self.rank if self.stopped_by is None else self.stopped_by)
            raise error
        status = self._mpi.Status()
        if self._comm.Iprobe(self._mpi.ANY_SOURCE, FAILURE, status):
            self.stopped_by = status.Get_source()
            error = self.failure(self.stopped_by)
            raise error


def _do_nothing(exchange: Exchange) -> None:
    pass
