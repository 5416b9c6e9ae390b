"""Version counters: when a buffer was last written to, and which deferred values must be computed before a write."""

from __future__ import annotations

from contextlib import suppress
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["VersionCounter"]

_creating = RLock()  # two threads may use one value: it must not have two counters


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
        with _creating:
            if not hasattr(value, "counter"):
                value.counter = cls()

    def add_pending(self, value: Any) -> None:
        """Register a deferred value that reads this buffer."""
        with _creating:
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
        VersionCounter.clock += 1
        self.version = VersionCounter.clock
