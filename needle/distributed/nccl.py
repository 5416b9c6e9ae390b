"""Exchanges of arrays that lie on GPUs, without a way through the host, where every rank has a GPU of its own.

As any call, one of these begins with the opening of `MpiCommunicator`. Once the openings of all ranks have come, and
are the same, the rest is queued on a stream of its own, so no kernel waits for what another rank never sends. The sum
is that of the other engines: each rank gets its share of every rank's array, adds the shares in the order of the ranks,
and sends the sum to all. The host waits for the others' openings, but never for a GPU.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import Device
from needle.backend.communicator import Array, Communicator
from needle.backend.cuda_nccl import ID_BYTES, Nccl, find_nccl, gpu_name, new_id
from needle.backend.narrow import narrow, widen
from needle.backend.parallel import start_thread
from needle.backend.recording import refuse
from needle.distributed.pieces import HEADER_BYTES, add, header_of, header_of_gathering, readable

__all__ = ["GpuExchange", "GpuExchanges", "GpuGathering", "connected"]

Wait = Callable[[Callable[[], bool]], None]


class GpuExchange:
    """An array of a GPU under way, as a row of elements; also the request that waits for it."""

    def __init__(
        self, gpu: GpuExchanges, kind: str, array: Array, root: int | None = None, wire: str | None = None
    ) -> None:
        refuse(kind, "an exchange with other ranks")
        self.gpu, self.array, self.root, self.wire = gpu, array, root, wire
        self.header = _on_gpu(header_of(kind, array.shape, array.dtype, root, wire))
        self.is_copy = wire is not None or not array.flags.c_contiguous
        with gpu.device.current():
            flat = gpu.device.xp.ascontiguousarray(array) if wire is None else narrow(array, wire)
            self.flat = flat.reshape(-1)
            self.ready = gpu.mark()
        self.done: Any = None
        self.left = 0  # what must come before the rest is queued

    def finish(self) -> None:
        """All is queued."""

    def wait(self) -> None:
        """Let the current stream wait for the result."""
        if self.left:
            self.gpu.wait_until(lambda: not self.left)
        with self.gpu.device.current():
            self.gpu.stream_now().wait_event(self.done)
            if self.is_copy:
                self.is_copy = False
                total = self.flat if self.wire is None else widen(self.flat, self.wire)
                self.array[...] = total.reshape(self.array.shape)


class GpuGathering:
    """The opening of a call that gathers arrays of GPUs: it brings along the lengths of the first axes, by rank."""

    def __init__(self, array: Array) -> None:
        refuse("all_gather", "an exchange with other ranks")
        header, self.length = header_of_gathering(array)
        self.header = _on_gpu(header)
        self.lengths: list[int] = []
        self.left = 0

    def finish(self) -> None:
        """The lengths are here."""


class GpuExchanges:
    """What one rank exchanges from one GPU; `wait_until` takes steps until its argument returns True."""

    def __init__(self, nccl: Nccl, rank: int, size: int, wait_until: Wait) -> None:
        self.nccl, self.rank, self.size, self.wait_until = nccl, rank, size, wait_until
        self.device = nccl.device
        self.others = [other for other in range(size) if other != rank]
        self.under_way: deque[GpuExchange] = deque()  # keeps the arrays: others could get their memory meanwhile
        with self.device.current():
            self.stream = self.device.xp.cuda.Stream(non_blocking=True)

    def stream_now(self) -> Any:
        return self.device.xp.cuda.get_current_stream()

    def mark(self) -> Any:
        """An event after all that has been queued on the current stream."""
        event = self.device.xp.cuda.Event(disable_timing=True)
        event.record(self.stream_now())
        return event

    def launch(self, exchange: GpuExchange) -> None:
        """Queue an exchange that all ranks have opened."""
        with self.device.current(), self.stream:
            self.stream.wait_event(exchange.ready)
            if exchange.root is not None:
                self.nccl.broadcast(exchange.flat, exchange.root)
            elif exchange.flat.size:
                self._sum(exchange.flat, exchange.wire)
            exchange.done = self.mark()
        self.under_way.append(exchange)

    def _sum(self, flat: Array, wire: str | None) -> None:
        is_whole = flat.nbytes <= tuning.NCCL_WHOLE_BYTES
        ends = [flat.size * rank // self.size for rank in range(self.size + 1)]
        shares = [flat if is_whole else flat[ends[rank] : ends[rank + 1]] for rank in range(self.size)]
        mine = shares[self.rank]
        terms = list(self.device.xp.empty((self.size - 1, mine.size), flat.dtype))
        terms.insert(self.rank, mine)
        self.nccl.exchange((rank, shares[rank], terms[rank]) for rank in self.others)
        if wire is None:
            add(terms, mine)
        else:
            total = self.device.xp.empty(mine.shape, "float32")
            add([widen(term, wire) for term in terms], total)
            mine[...] = narrow(total, wire)
        if not is_whole:
            self.nccl.exchange((rank, mine, shares[rank]) for rank in self.others)

    def gather(self, array: Array, lengths: list[int]) -> list[Array]:
        """The arrays of all ranks, whose lengths along the first axis are given."""
        with self.device.current():
            flat = self.device.xp.ascontiguousarray(array)
            shapes = [(length, *array.shape[1:]) if array.ndim else () for length in lengths]
            entries = [self.device.xp.empty(shape, array.dtype) for shape in shapes]
            entries[self.rank][...] = array
            before = self.mark()
            with self.stream:
                self.stream.wait_event(before)
                self.nccl.exchange((rank, flat, entries[rank]) for rank in self.others)
                after = self.mark()
            self.stream_now().wait_event(after)
        return entries

    def progress(self) -> bool:
        """Let go of the arrays that are no longer under way; returns whether there was any."""
        before = len(self.under_way)
        while self.under_way and self.under_way[0].done.done:
            self.under_way.popleft()
        return len(self.under_way) < before

    def close(self) -> None:
        """End it after all exchanges."""
        self.wait_until(lambda: not self.under_way)
        self.nccl.close()

    def abort(self) -> None:
        """End it now: what waits for other ranks ends, with arbitrary results."""
        self.nccl.abort()


def connected(communicator: Communicator, wait_until: Wait, device: Device) -> GpuExchanges | None:
    """The exchanges from this GPU, or None if they must go through the host; all ranks must call it at the same time.

    It warns of the latter on rank 0. Raises RuntimeError if NCCL cannot connect the GPUs.
    """
    version, reason = find_nccl()
    card = f"{gpu_name(device)}\n{version}\n{reason}".encode()
    cards = [other.tobytes().decode() for other in communicator.all_gather(np.frombuffer(card, "uint8"))]
    number = np.zeros(ID_BYTES, "uint8")
    if problem := _problem(cards):
        if communicator.rank == 0:
            warnings.warn(f"all_reduce: arrays of GPUs go through the host, because {problem}", RuntimeWarning, 2)
        return None
    if communicator.rank == 0:
        number[:] = np.frombuffer(new_id(), "uint8")
    communicator.broadcast(number)
    outcome: list[Nccl | BaseException] = []

    def connect() -> None:
        try:
            outcome.append(Nccl(device, communicator.size, number.tobytes(), communicator.rank))
        except BaseException as error:
            outcome.append(error)

    # A thread waits for the others' GPUs, so that this one learns when a rank fails, or of Ctrl-C.
    start_thread(threading.Thread(target=connect, name="needle-nccl", daemon=True), outcome.append)
    wait_until(lambda: bool(outcome))
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return GpuExchanges(outcome[0], communicator.rank, communicator.size, wait_until)


def _problem(cards: list[str]) -> str | None:
    """Why NCCL cannot connect the GPUs of ranks with these cards: the GPU, the version of NCCL, why there is none."""
    names, versions, reasons = zip(*(card.split("\n", 2) for card in cards), strict=True)
    for rank, name in enumerate(names):
        if (first := names.index(name)) != rank:
            return f"ranks {first} and {rank} have the same GPU"
    for rank, reason in enumerate(reasons):
        if reason:
            return f"rank {rank} finds no NCCL: {reason}"
    for rank, version in enumerate(versions):
        if version != versions[0]:
            return f"ranks 0 and {rank} have different versions of NCCL"
    return None


def _on_gpu(header: bytes) -> bytes:
    return f"{readable(header)}, on a GPU".encode().ljust(HEADER_BYTES)[:HEADER_BYTES]
