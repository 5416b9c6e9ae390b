"""How many threads BLAS may use: one while loops of needle run, in whichever threads; else the user's number.

BLAS has one number of threads for the whole process, and with another number a product may have other bits. So all
loops that run at the same time share one limit: the first one sets it, the last one lifts it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

__all__ = ["drop_limit", "hold_limit", "limited_to", "worker_count"]


class _Library(NamedTuple):
    """A BLAS library: how to read and how to set its number of threads."""

    get: Callable[[], int]
    set: Callable[[int], object]


@cache
def _libraries() -> list[_Library]:
    """The BLAS libraries in this process, NumPy's first: SciPy may have its own."""
    from threadpoolctl import ThreadpoolController  # the import takes as long as a step of a small network

    controllers = ThreadpoolController().select(user_api="blas").lib_controllers
    home = os.path.dirname(np.__file__)  # wheels keep their libraries in it, or beside it in numpy.libs
    return [_library(found) for found in sorted(controllers, key=lambda found: not found.filepath.startswith(home))]


def _library(controller: Any) -> _Library:
    """The library of a controller, which finds it.

    OpenBLAS with threads of its own is asked and told directly. It takes 1 µs to limit it and to lift the limit;
    through the controller 15, and since 3.8 that obeys only the thread that set a number first.
    """
    if controller.internal_api == "openblas" and controller.threading_layer != "openmp":
        from ctypes import PyDLL  # unlike CDLL it keeps Python's lock, which others would take meanwhile

        library = PyDLL(controller.filepath)
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            names = [f"{prefix}openblas_{action}_num_threads{suffix}" for action in ("get", "set")]
            if all(hasattr(library, name) for name in names):
                return _Library(*(getattr(library, name) for name in names))
    return _Library(controller.get_num_threads, controller.set_num_threads)


class _Limit:
    """The limit of BLAS to one thread: the loops that hold it, and the numbers of threads to go back to.

    An interrupt may come between any two lines. So the lock is a dict entry that names its thread, which may take it
    again, and each step of `drop` may be repeated: a second `drop` completes what an interrupt left undone.
    """

    def __init__(self) -> None:
        self.loops: set[object] = set()
        self.before: list[int] = []  # while loops run: the number of each library before the first one
        self.entries = 0  # how often BLAS has been limited
        self.owner: dict[str, int] = {}  # "thread": the one that is inside of `hold` or `drop`

    def hold(self, loop: object) -> None:
        self._lock()
        self.loops.add(loop)
        if not self.before:
            self.before = [library.get() for library in _libraries()]
            self.entries += 1
            for library in _libraries():
                library.set(1)
        self._unlock()

    def drop(self, loop: object) -> None:
        if loop not in self.loops and self.owner.get("thread") != get_ident():
            return
        self._lock()
        self.loops.discard(loop)
        if not self.loops:
            for library, count in zip(_libraries(), self.before):  # noqa: B905 (a repeated drop has no numbers left)
                if library.get() == 1:  # else another thread has set a number meanwhile
                    library.set(count)
            self.before = []
        self._unlock()

    def change(self, counts: list[int]) -> None:
        """Set the number of threads of each library; while loops run, the one to go back to."""
        self._lock()
        if self.before:
            self.before = counts
        else:
            for library, count in zip(_libraries(), counts, strict=True):
                library.set(count)
        self._unlock()

    def _lock(self) -> None:
        while self.owner.setdefault("thread", get_ident()) != get_ident():
            time.sleep(1e-5)  # another thread has it for about as long

    def _unlock(self) -> None:
        self.owner.pop("thread", None)


_limit = _Limit()


def hold_limit(loop: object) -> None:
    """Keep BLAS on one thread until `drop_limit(loop)`."""
    _limit.hold(loop)


def drop_limit(loop: object) -> None:
    """The end of `hold_limit(loop)`; may be repeated, and must be after an interrupt."""
    _limit.drop(loop)


def worker_count() -> int:
    """The number of threads of a loop: as many as BLAS may use, or 1 if BLAS does not say (Accelerate on macOS)."""
    libraries = _libraries()
    while libraries:
        entries, before = _limit.entries, _limit.before
        count = before[0] if before else libraries[0].get()
        if entries == _limit.entries:  # else another thread has limited BLAS between the two lines above
            return int(count)
    return 1


@contextmanager
def limited_to(count: int) -> Iterator[None]:
    """Let BLAS, and so loops, use `count` threads in this process until the block ends."""
    before = list(_limit.before) or [library.get() for library in _libraries()]
    try:
        try:
            _limit.change([count] * len(before))
            yield
        finally:
            _limit.change(before)
    finally:  # once more: an interrupt may come before the line above, or in it
        _limit.change(before)


def _reset_after_fork() -> None:
    """Lift the limit in a forked child, since the loops that held it do not run there."""
    global _limit
    before, _limit = _limit.before, _Limit()
    for library, count in zip(_libraries() if before else (), before):  # noqa: B905 (the same length, or none)
        library.set(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
