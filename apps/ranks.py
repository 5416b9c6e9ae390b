"""One run in several processes that mpiexec has started, the ranks: the first one speaks, and writes the files."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import errors
from needle.distributed import current_communicator, join, launched

__all__ = ["AllLeave", "alone", "by_all", "by_first", "check_alike", "is_first", "joined", "launcher", "named"]

T = TypeVar("T")

SILENCE = 1.0  # seconds in which the first process speaks: launchers kill all once one has left with a status


class AllLeave(SystemExit):
    """All ranks leave at the same point of the program, with the same status: MPI ends in order."""


@contextlib.contextmanager
def joined(script: str, arguments: Sequence[str] | None) -> Iterator[None]:
    """With --distributed, make this process one of the ranks until the block ends; those after the first are silent.

    Without it the script must be the only process that a launcher has started.

    mpiexec sends Ctrl-C and SIGTERM to all of them, but only rank 0 heeds these: the others end with it.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--distributed", action="store_true")
    if not parser.parse_known_args(arguments)[0].distributed:
        _refuse_others(script, "each would train a network of its own; add --distributed")
        yield
        return
    status: Any = None
    with contextlib.ExitStack() as stack:
        with errors.user_errors(script):
            communicator = stack.enter_context(join())
        if communicator.rank:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `join` has them ignore Ctrl-C
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            yield
        except AllLeave as end:
            status = end.code
    if status is not None:
        raise SystemExit(status)


def alone(script: str) -> None:
    """Leave if a launcher has started several processes, where the script has nothing to divide."""
    _refuse_others(script, "each would do the same; run it alone")


def _refuse_others(script: str, reason: str) -> None:
    """Leave with status 2 if a launcher has started several processes; the first one says why."""
    process = launched()
    if process is not None and process.size > 1:
        if process.rank:
            time.sleep(SILENCE)
            raise SystemExit(2)
        errors.leave(f"{script}: a launcher has started {process}, and {reason}", 2)


def is_first() -> bool:
    """Whether this process is rank 0, or the only one."""
    return current_communicator().rank == 0


def launcher() -> str:
    """What stands before `python` on the command line of this run: nothing, or mpiexec with the number of ranks."""
    size = current_communicator().size
    return f"mpiexec -n {size} " if size > 1 else ""


def named() -> str:
    """This rank in words."""
    communicator = current_communicator()
    return f"rank {communicator.rank} of {communicator.size}"


def by_all(script: str, work: Callable[[], T]) -> T:
    """What `work()` returns; its errors are the user's. If one rank leaves, all do, and rank 0 shows why, once."""
    communicator = current_communicator()
    if communicator.size == 1:
        with errors.user_errors(script):
            return work()
    result: Any = None
    own: Any = None
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words), errors.user_errors(script):
            result = work()
    except SystemExit as end:
        own = end.code
    ends = communicator.all_gather_object((own, words.getvalue().rstrip("\n")))
    for rank, (status, text) in enumerate(ends):
        if is_first() and text and (status is not None or rank == 0):
            errors.show(f"{text} (on rank {rank} of {communicator.size})" if rank else text)
        if status is not None:
            raise AllLeave(status)
    return result  # type: ignore[no-any-return]


def by_first(script: str, work: Callable[[], T]) -> T:
    """What `work()` returns on rank 0, which alone calls it, as a copy on the others; if it leaves there, all do."""
    result: Any = by_all(script, work if is_first() else lambda: None)
    communicator = current_communicator()
    return result if communicator.size == 1 else communicator.all_gather_object(result)[0]  # type: ignore[no-any-return]


def check_alike(data: Mapping[str, Any]) -> None:
    """Raise ValueError if a rank has read other data than the first one; their name may differ."""
    first, *others = current_communicator().all_gather_object(dict(data))
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if name != "name" and other[name] != value:
                raise ValueError(
                    f"the data must be the same for all ranks, but {name} is {other[name]} on rank {rank}, not {value}"
                )
