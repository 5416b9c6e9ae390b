"""A plan: the calls that a tracer has noted, as a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

import numpy as np

from needle.backend.plan.calls import run_calls
from needle.backend.plan.device import traced
from needle.backend.plan.tracer import Tracer
from needle.backend.recording import Array, Eager, Missed, Numbers, Recording

__all__ = ["Plan", "record"]

_lock = RLock()  # one recording at a time


def record(device: Any, function: Callable[[], object]) -> Plan:
    """Run `function` and note its calls. Raises CannotRecord, once it has run, if some cannot be noted."""
    tracer = Tracer(device)
    with _lock, tracer.under_way(), traced(device):
        function()
    if tracer.failure is not None:
        tracer.failure.is_done = True
        raise tracer.failure
    return Plan(tracer)


class Plan(Recording):
    """Calls on kept memory."""

    is_exact = False  # until a replay has been compared: a call may have escaped the tracer

    def __init__(self, tracer: Tracer) -> None:
        self.recorder: Tracer = tracer
        self.calls = tracer.calls
        self.written = [*tracer.written.values()]
        self.early = [(array, np.empty_like(array)) for array in tracer.early.values()]
        self.draws_early = tracer.early_draws > 0

    def replay(self, numbers: Sequence[Numbers] | None = None) -> None:
        """See `Recording`; cells take `numbers`, if there are some, instead of new ones."""
        cells = self.recorder.filling
        cells.given, cells.numbers = None if numbers is None else [*numbers], []
        for array, image in self.early:
            np.copyto(image, array)
        stream = np.random.get_state(legacy=False) if self.draws_early else None
        try:
            with np.errstate():
                run_calls(self.calls)
        except Missed as missed:
            for array, image in self.early:
                np.copyto(array, image)
            if stream is not None:
                np.random.set_state(stream)
            missed.numbers = cells.numbers
            raise

    def compare(self, run: Callable[[], list[Array]], results: Callable[[], list[Array]]) -> bool:
        eager = Eager(self.recorder.device)
        before = self._state()
        with eager.under_way():
            wanted = [None if array is None else array.copy() for array in run()]
        after = self._state()
        try:
            self._restore(before)
            for block in self.recorder.arena.blocks.values():
                block.fill(255)  # NaN, or -1: what is not computed anew is seen
            self.replay(eager.numbers)
            found, state = results(), self._state()
            same = len(found) == len(wanted) and all(map(is_equal, found, wanted))
            return same and all(map(is_equal, state[0], after[0])) and repr(state[1]) == repr(after[1])
        finally:
            self._restore(after)

    def _state(self) -> tuple[list[Array], Any]:
        """Copies of the memory that the calls change and that is not their own, and the state of NumPy's stream."""
        return [array.copy() for array in self.written], np.random.get_state(legacy=False)

    def _restore(self, state: tuple[list[Array], Any]) -> None:
        for array, image in zip(self.written, state[0], strict=True):
            np.copyto(array, image)
        np.random.set_state(state[1])


def is_equal(first: Array | None, second: Array | None) -> bool:
    """Whether two arrays have the same shape, dtype and bits."""
    if first is None or second is None:
        return first is second
    same = first.shape == second.shape and first.dtype == second.dtype
    return same and bool(first.tobytes() == second.tobytes())
