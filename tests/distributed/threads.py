"""Ranks as threads of one process: the smallest engine behind `Communicator`."""

from __future__ import annotations

import contextvars
import threading

import numpy as np

from needle.backend import compute_dtype, device_of, to_host, without_warnings
from needle.backend.communicator import Communicator, using
from needle.backend.narrow import rounded
from needle.distributed.shared_memory import SharedMemoryCommunicator, memory_bytes

PATIENCE = 60  # seconds until a rank gives up waiting for the others


def run_ranks(size, function, engine=None):
    """Call `function(communicator)` in `size` threads, each `using` its communicator: the results by rank.

    `engine(size)` makes the communicators; by default they are of `ThreadCommunicator`. An error of a rank ends the
    others at their next exchange, and is raised here.

    NumPy's global random stream belongs to the process, so all these ranks draw from the same one.
    """
    results, errors = [None] * size, []

    def work(rank, communicator):
        try:
            with using(communicator):
                results[rank] = function(communicator)
            communicator.leave()
        except BaseException as error:
            errors.append(error)
            communicator.fail()

    ranks = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, rank, communicator))
        for rank, communicator in enumerate((engine or in_python)(size))
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return results


def in_python(size):
    """Communicators that exchange Python's objects."""
    board = _Board(size)
    return [ThreadCommunicator(rank, board) for rank in range(size)]


def in_shared_memory(size):
    """needle's own engine, on memory of this process."""
    memory = bytearray(memory_bytes(size))
    return [SharedMemoryCommunicator(rank, size, memory) for rank in range(size)]


class _Board:
    """What the ranks show each other."""

    def __init__(self, size):
        self.entries = [None] * size
        self.barrier = threading.Barrier(size, timeout=PATIENCE)


class ThreadCommunicator(Communicator):
    """A rank that is a thread.

    It punishes those who use an array between `start_all_reduce` and `wait`: floats are NaN meanwhile. The sum is
    written by `wait`, and written even if the array has been changed.
    """

    def __init__(self, rank, board):
        self.rank, self.size, self.board = rank, len(board.entries), board
        self.calls = []  # (kind, shape, dtype) of every exchange of this rank

    def all_reduce(self, array, wire=None):
        self.start_all_reduce(array, wire).wait()

    def start_all_reduce(self, array, wire=None):
        entries = self._exchange("all_reduce" if wire is None else f"all_reduce in {wire}", array)
        if wire is not None:
            entries = [rounded(entry, wire) for entry in entries]
        total, *others = [entry.astype(compute_dtype(entry.dtype)) for entry in entries]
        with without_warnings():
            for other in others:
                total = total + other
        if wire is not None:
            total = rounded(total, wire)
        if array.dtype.kind == "f":
            array[...] = np.nan
        return _Write(array, total)

    def broadcast(self, array, root=0):
        _write(array, self._exchange(f"broadcast {root}", array)[root])

    def all_gather(self, array):
        like = array[:0] if array.ndim else array
        return [device_of(array).asarray(entry) for entry in self._exchange("all_gather", array, like)]

    def leave(self):
        pass

    def fail(self):
        self.board.barrier.abort()

    def _exchange(self, kind, array, like=None):
        """Host copies of the arrays of all ranks, which must have the shape and dtype of one like this."""
        like = array if like is None else like
        call = (kind, like.shape, array.dtype)
        self.calls.append(call)
        self.board.entries[self.rank] = (call, np.array(to_host(array)))
        self.board.barrier.wait()
        entries = list(self.board.entries)
        self.board.barrier.wait()
        if any(entry[0] != call for entry in entries):
            raise RuntimeError(f"the ranks must make the same calls, but they call {[entry[0] for entry in entries]}")
        return [entry[1] for entry in entries]


class _Write:
    """The request of a sum that is written when it is waited for."""

    def __init__(self, array, total):
        self.array, self.total = array, total

    def wait(self):
        if self.total is not None:
            _write(self.array, self.total)
            self.total = None


def _write(array, values):
    with without_warnings():
        array[...] = device_of(array).asarray(values, dtype=array.dtype)
