"""Version counters: when a buffer was last written to."""

from __future__ import annotations

import os
from collections.abc import Collection
from threading import RLock
from typing import Any

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
    """Version counter shared by all values that alias one buffer: the process-wide write count at its last write."""

    __slots__ = ("version",)
    clock = 0  # in-place changes of this process so far

    def __init__(self) -> None:
        self.version = 0

    @classmethod
    def give_to(cls, value: Any) -> None:
        """Give a counter to a value that has none."""
        with _lock:
            if not hasattr(value, "counter"):
                value.counter = cls()

    def bump(self) -> None:
        """Count a write that is about to happen."""
        if noting.recorder is not None:
            noting.recorder.changed[id(self)] = self
        with _lock:  # else a thread could set back the clock of another one
            VersionCounter.clock += 1
            self.version = VersionCounter.clock

    @classmethod
    def bump_all(cls, counters: Collection[VersionCounter]) -> None:
        """`bump` each of several counters, at one time."""
        with _lock:
            cls.clock += 1
            for counter in counters:
                counter.version = cls.clock
