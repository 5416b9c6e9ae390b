"""Ctrl-C and SIGTERM: training ends after the step that runs, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from needle.backend.communicator import current_communicator
from needle.training.state import TrainingState

__all__ = ["StopOnSignal"]


class StopOnSignal:
    """Within `with StopOnSignal() as stop`, `fit(…, callbacks=[stop])` ends after the current step at a signal.

    The first SIGINT (Ctrl-C) or SIGTERM is noted in `stop.signal` and told on stderr; `fit` then writes its checkpoint
    and returns. The second one does what it would have done outside: a KeyboardInterrupt, or the end of the process.
    Signals that the process ignores stay ignored. Leaving the block restores the handlers. In a thread other than the
    main one, where Python handles no signals, the block changes nothing. Where several ranks train, rank 0 decides, and
    the others ignore the signals, which mpiexec and srun send to all.

    In a loop of your own: `if stop.signal: break`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.signal = None
        if threading.current_thread() is threading.main_thread():
            handler = self._note if current_communicator().rank == 0 else signal.SIG_IGN
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: a handler that is not Python's
                    self._handlers[number] = before
                    signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_step(self, state: TrainingState) -> None:
        """Called by `fit` after each step."""
        if self.signal is not None:
            state.stop(self.signal.name)

    on_epoch_end = on_step

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self.__exit__()
            signal.raise_signal(number)
            return
        self.signal = signal.Signals(number)
        message = f"\n{self.signal.name}: stopping after this step; once more stops at once\n"
        with contextlib.suppress(OSError):
            os.write(2, message.encode())  # a handler may interrupt a print, in which no other one can begin
