"""How the ranks of a program that `mpiexec` has started end: all together, with one message and one status.

A rank that fails would wait in `MPI_Finalize` for the others, who wait for its arrays; so it tells them, and nobody
finalizes. What each rank says is (status, whether it only follows another one that has failed): the lowest rank with a
failure of its own speaks and ends first, and a launcher that sees a rank end so ends all. Whoever cannot listen because
it computes is ended by `MPI_Abort`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np

from needle.distributed.mpi import MpiCommunicator

__all__ = ["Ending", "time_limit"]

HEARING = 0.5  # seconds until another rank hears that one has failed, if it exchanges anything
PATIENCE = 5.0  # seconds in which the one who speaks, or the launcher, ends this rank
INTERRUPTED = 128 + signal.SIGINT


class Ending:
    """The end of the block: all ranks have come there, or none goes on. `world` is MPI's communicator of all."""

    def __init__(self, world: Any) -> None:
        self.comm = world.Dup()  # its messages are ours alone
        self.rank, self.size = world.Get_rank(), world.Get_size()
        self.communicator: MpiCommunicator | None = None

    def __enter__(self) -> Ending:
        atexit.register(self._leave_early)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None or _is_success(error):
                assert self.communicator is not None
                self.communicator.leave()
                self.comm.Free()
                atexit.unregister(self._leave_early)
                return
        except BaseException as failure:
            error = failure
        self._end(error)

    def _leave_early(self) -> None:
        """End all when Python ends within the block, as after an interrupt at its very beginning."""
        self._end(SystemExit(1))

    def _end(self, error: BaseException) -> NoReturn:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        follows = self.communicator is not None and self.communicator.stopped_by is not None
        status = _status_of(error)
        if self.rank == 0 and not follows:
            self._speak(error)
        _flush()
        if self.communicator is not None:
            self.communicator.fail()
        heard = self._exchange(status, follows)
        own = {rank: status for rank, (status, is_following) in heard.items() if not is_following}
        if (follows and own) or min(own, default=self.rank) < self.rank:
            time.sleep(PATIENCE)
            os._exit(own[min(own)])
        if self.rank or follows:
            self._speak(error)
            _flush()
        if len(heard) == self.size - 1:
            os._exit(status)
        self.comm.Abort(status)
        os._exit(status)

    def _exchange(self, status: int, follows: bool) -> dict[int, tuple[int, bool]]:
        """Tell the others; returns what those say who end as well."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        mine, theirs = np.array([status, follows]), np.zeros((self.size, 2), "int64")
        sending = [self.comm.Isend(mine, rank) for rank in others]
        receiving = {rank: self.comm.Irecv(theirs[rank], rank) for rank in others}
        heard: dict[int, tuple[int, bool]] = {}
        end = time.monotonic() + HEARING
        while len(heard) < len(others) and time.monotonic() < end:
            for rank, request in receiving.items():
                if rank not in heard and request.Test():
                    heard[rank] = int(theirs[rank, 0]), bool(theirs[rank, 1])
            time.sleep(1e-3)
        for request in sending:
            request.Test()
        return heard

    def _speak(self, error: BaseException) -> None:
        who = f"rank {self.rank} of {self.size}"
        if isinstance(error, SystemExit):
            if isinstance(error.code, int):  # its program has said why
                text = f"{who} has left with status {error.code}, so all end\n" if self.rank else ""
            else:
                text = f"{error.code}\n"
        else:
            error.add_note(f"This was {who}; all end.")
            text = "".join(traceback.format_exception(error))
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.write(text)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer: nothing else reaches a thread that waits within MPI."""
    is_over = threading.Event()

    def watch() -> None:
        if not is_over.wait(seconds):
            with suppress(Exception):
                sys.stderr.write(f"join: all ranks must come within {seconds:g} s, but one has not\n")
            _flush()
            os._exit(1)

    threading.Thread(target=watch, name="needle-join", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _is_success(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code in (None, 0)


def _status_of(error: BaseException) -> int:
    """The exit status that Python would give a program with such an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code & 0xFF or 1
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
