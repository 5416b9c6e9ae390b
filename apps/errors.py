"""How the scripts end: errors of the user in one line with status 2, Ctrl-C with status 130. Imports no library."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NoReturn

__all__ = ["interruptible", "leave", "user_errors"]


@contextmanager
def user_errors(script: str) -> Iterator[None]:
    """Turn errors about files, devices, memory and options into one line on stderr and exit status 2."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        leave(f"{script}: {one_line(error)}", 2)


@contextmanager
def interruptible(progress: Callable[[], str]) -> Iterator[None]:
    """End long work in one line: "stopped", what `progress` says of the work done, and the reason.

    Ctrl-C gives status 130; a full disk, a closed pipe or too little memory gives status 2. Other errors are mistakes
    in a program and keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        leave(f"\nstopped{progress()}", 130)
    except (OSError, MemoryError) as error:
        leave(f"stopped{progress()}: {one_line(error)}", 2)


def one_line(error: Exception) -> str:
    """The message of an error in one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def leave(line: str, status: int) -> NoReturn:
    """Write a line to stderr and exit, without a second error if stderr or stdout is closed or full."""
    for stream, text in ((sys.stderr, f"{line}\n"), (sys.stdout, "")):
        if stream is not None:  # None: it was closed before the start
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise SystemExit(status) from None


if find_spec("needle") is None:
    leave("needle must be installed, by pip install -e ., but there is no module of that name", 2)
