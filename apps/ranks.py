"""One run in several processes that mpiexec has started, the ranks: the first one speaks, and writes the files."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

import errors
from needle.distributed import current_communicator, join

__all__ = ["AllLeave", "by_all", "by_first", "check_alike", "is_first", "joined", "launcher", "named"]

T = TypeVar("T")


class AllLeave(SystemExit):
    """All ranks leave at the same point of the program, with the same status: MPI ends in order."""


@contextlib.contextmanager
def joined(script: str, arguments: Sequence[str] | None) -> Iterator[None]:
    """With --distributed, make this process one of the ranks until the block ends; those after the first are silent.

    mpiexec sends Ctrl-C and SIGTERM to all of them, but only rank 0 heeds these: the others end with it.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--distributed", action="store_true")
    if not parser.parse_known_args(arguments)[0].distributed:
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
    size = current_communicator().size
    if size == 1:
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
    for rank, (status, text) in enumerate(_gathered((own, words.getvalue().rstrip("\n")))):
        if is_first() and text and (status is not None or rank == 0):
            errors.show(f"{text} (on rank {rank} of {size})" if rank else text)
        if status is not None:
            raise AllLeave(status)
    return result  # type: ignore[no-any-return]


def by_first(script: str, work: Callable[[], T]) -> T:
    """What `work()` returns on rank 0, which alone calls it, as a copy on the others; if it leaves there, all do."""
    result: Any = by_all(script, work if is_first() else lambda: None)
    return result if current_communicator().size == 1 else _gathered(result)[0]  # type: ignore[no-any-return]


def check_alike(data: Mapping[str, Any]) -> None:
    """Raise ValueError if a rank has read other data than the first one; their name may differ."""
    first, *others = _gathered(dict(data))
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if name != "name" and other[name] != value:
                raise ValueError(
                    f"the data must be the same for all ranks, but {name} is {other[name]} on rank {rank}, not {value}"
                )


def _gathered(value: Any) -> list[Any]:
    """Plain data of all ranks, by rank."""
    content = np.frombuffer(pickle.dumps(value), "uint8").copy()
    return [pickle.loads(part.tobytes()) for part in current_communicator().all_gather(content)]
