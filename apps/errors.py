"""How the scripts end: errors of the user in one line with status 2, Ctrl-C with status 130. Imports no library.

From its import on, Ctrl-C while libraries are loaded is one line, too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

__all__ = ["Parser", "interruptible", "leave", "one_line", "show", "user_errors"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. A path must not be empty: that would be the current folder."""

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(prog, description=description)
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        """Exit with a line and status 2; --help shows the usage."""
        leave(f"{self.prog}: error: {message}", 2)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(text)


@contextmanager
def user_errors(script: str, until: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn errors about files, packages, devices, memory and options into one line on stderr and exit status 2.

    Once `until` returns True, errors are no longer the user's, and pass through.
    """
    try:
        yield
    except (ImportError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        if until():
            raise
        leave(f"{script}: {one_line(error)}", 2)


@contextmanager
def interruptible(progress: Callable[[], str] = str, advice: Callable[[], str] = str) -> Iterator[None]:
    """End long work in one line: "stopped", what `progress` says of the work done, the reason, and `advice`.

    Ctrl-C gives status 130; a full disk, a closed pipe or too little memory gives status 2. Other errors are mistakes
    in a program and keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        leave(f"\nstopped{progress()}{advice()}", 130)
    except (OSError, MemoryError) as error:
        leave(f"stopped{progress()}: {one_line(error)}{advice()}", 2)


def one_line(error: Exception) -> str:
    """The message of an error in one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def leave(line: str, status: int) -> NoReturn:
    """Write a line to stderr and exit, without a second error if stderr or stdout is closed or full."""
    show(line)
    raise SystemExit(status) from None


def show(line: str) -> None:
    """Write a line to stderr, and what stdout still holds, without an error if one of them is closed or full."""
    for stream, text in ((sys.stderr, f"{line}\n"), (sys.stdout, "")):
        if stream is not None:  # None: it was closed before the start
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What the interpreter does with an error that nothing caught."""
    if kind is KeyboardInterrupt:
        show("\nstopped")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report

if find_spec("needle") is None:
    leave("needle must be installed, by pip install -e ., but there is no module of that name", 2)
