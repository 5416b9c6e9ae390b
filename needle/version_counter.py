"""Version counters: when a buffer was last written to, and which deferred values must be computed before a write."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from needle.backend import noting

__all__ = ["VersionCounter"]

_lock = RLock()  # two threads may use one value, and all write by one clock


def _reset_after_fork() -> None:
    """Give a forked child a new lock: the thread that held it may not exist there."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


class VersionCounter:
    """Version counter shared by all values that alias one buffer: the process-wide write count at its last write.

    `pending` holds deferred values (`needle.lazy`) that will read the buffer; a write computes them first.
    """

    __slots__ = ("pending", "version")
    clock = 0  # in-place changes of this process so far

    def __init__(self) -> None:
        self.version = 0
        self.pending: WeakValueDictionary[int, Any] | None = None  # by id: == compares elements

    @classmethod
    def give_to(cls, value: Any) -> None:
        """Give a counter to a value that has none."""
        with _lock:
            if not hasattr(value, "counter"):
                value.counter = cls()

    def add_pending(self, value: Any) -> None:
        """Register a deferred value that reads this buffer."""
        with _lock:
            if self.pending is None:
                self.pending = WeakValueDictionary()
            self.pending[id(value)] = value

    def compute_pending(self) -> None:
        """Compute the deferred values from the buffer as it is now."""
        if self.pending is None:
            return
        for value in list(self.pending.values()):
            with suppress(Exception):  # an op that fails raises again when its own value is read
                value.array  # noqa: B018
        self.pending = None

    def bump(self) -> None:
        """Count a write that is about to happen."""
        self.compute_pending()
        if noting.recorder is not None:
            noting.recorder.changed[id(self)] = self
        with _lock:  # else a thread could set back the clock of another one
            VersionCounter.clock += 1
            self.version = VersionCounter.clock

    @classmethod
    def bump_all(cls, counters: Collection[VersionCounter]) -> None:
        """`bump` each of several counters, at one time."""
        for counter in counters:
            counter.compute_pending()
        with _lock:
            cls.clock += 1
            for counter in counters:
                counter.version = cls.clock
