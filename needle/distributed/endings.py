"""How the ranks of a program that `mpiexec` has started end: all together, with one message and one status.

A rank that fails would wait in `MPI_Finalize` for the others, who wait for its arrays. So it tells them, and nobody
finalizes. What each rank says is (status, whether it only follows another one that has failed). The lowest rank with a
failure of its own speaks and then ends all; the others wait for that in silence. Who waits in an exchange hears of a
failure at once; who computes is ended by the launcher.
"""

from __future__ import annotations

import atexit
import os
import signal
import stat
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from needle.distributed.meeting import Words, wait_at_end
from needle.distributed.mpi import MpiCommunicator
from needle.distributed.waiting import no_rank

__all__ = ["Ending"]

HEARING = 1.0  # seconds in which a rank hears that one has failed, if it exchanges anything
PATIENCE = 5.0  # seconds in which the one who has failed speaks, and the launcher ends the others
READING = 3.0  # seconds in which the launcher reads what a rank has written
INTERRUPTED = 128 + signal.SIGINT


class Ending:
    """The end of the block: all ranks have come there, or none goes on."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.communicator: MpiCommunicator | None = None

    def __enter__(self) -> Ending:
        atexit.unregister(_end_program)  # it comes after the next
        atexit.register(_end_program)
        atexit.register(self._leave_early)
        _under_way.append(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self not in _under_way:  # a fork of a rank goes its own way
            return
        try:
            if error is None or _is_success(error):
                assert self.communicator is not None
                self.communicator.leave()
                atexit.unregister(self._leave_early)
                _under_way.remove(self)
                return
        except BaseException as failure:
            error = failure
        self._end(error)

    def _leave_early(self) -> None:
        """End all when Python ends within the block, as after an interrupt at its very beginning."""
        self._end(SystemExit(f"rank {self.rank} of {self.size} has ended its program within `join`, so all end"))

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
        heard: dict[int, tuple[int, int]] = {}
        with suppress(Exception):  # MPI itself may be what has failed
            self._exchange(status, follows, heard)
        own = {rank: status for rank, (status, is_following) in heard.items() if not is_following}
        if (follows and own) or min(own, default=self.rank) < self.rank:
            time.sleep(PATIENCE)
            os._exit(own[min(own)])
        if self.rank or follows:
            self._speak(error)
            _flush()
        self._end_all(status, len(heard) == self.size - 1)

    def _end_all(self, status: int, all_end: bool) -> NoReturn:
        """End the processes of all ranks with that status, in the way of which the launcher says the least.

        Open MPI's launcher ends all where one ends without MPI_Finalize, and writes 6 lines; after MPI_Abort it writes
        13. MPICH's does the same without a word, but often with the status of those that it has killed; for MPI_Abort
        the library writes one line, and on another communicator than that of all the status is as uncertain.
        """
        from mpi4py import MPI

        _wait_until_read()
        if not (all_end and MPI.get_vendor()[0] == "Open MPI"):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            MPI.COMM_WORLD.Abort(status)
        os._exit(status)

    def _exchange(self, status: int, follows: bool, heard: dict[int, tuple[int, int]]) -> None:
        """Tell the others, and put into `heard` what those say who end as well."""
        words, start = Words(status, follows), time.monotonic()
        while not words.have_come():
            heard.update(words.heard)
            is_known = not follows or any(not is_following for _, is_following in heard.values())
            if time.monotonic() - start > (HEARING if is_known else PATIENCE):
                return
            time.sleep(1e-3)
        heard.update(words.heard)

    def _speak(self, error: BaseException) -> None:
        who = f"rank {self.rank} of {self.size}"
        with suppress(Exception):
            if not isinstance(error, SystemExit):
                text = f"{''.join(traceback.format_exception(error)).rstrip()}\nThis was {who}; all end.\n"
            elif not isinstance(error.code, int):
                text = f"{error.code}\n"
            else:  # its program has said why
                text = f"{who} has left with status {error.code}, so all end\n" if self.rank else ""
            sys.stdout.flush()
            sys.stderr.write(text)


_under_way: list[Ending] = []  # of this process


def _end_program() -> None:
    """Wait for the others, so that one of them who joins again learns that this rank has ended."""
    _flush()
    _wait_until_read()  # before such a rank ends all
    wait_at_end()


def _forget_all() -> None:
    """A process that a rank has forked is none: MPI's messages belong to its parent."""
    for ending in _under_way:
        atexit.unregister(ending._leave_early)
        if ending.communicator is not None:
            ending.communicator.has_failed, ending.communicator.failure = True, no_rank
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _is_success(error: BaseException) -> bool:
    """Whether the block is left as by its end: also by a generator that holds it open and is closed."""
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in (None, 0))


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


def _wait_until_read() -> None:
    """Wait until the launcher has read what this process has written: MPICH's loses what it finds after MPI_Abort."""
    with suppress(ImportError, OSError):  # such a system has no pipes that tell
        import fcntl
        import termios

        pipes = [descriptor for descriptor in (1, 2) if stat.S_ISFIFO(os.fstat(descriptor).st_mode)]
        end = time.monotonic() + READING
        while any(any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))) for pipe in pipes) and time.monotonic() < end:
            time.sleep(1e-3)
