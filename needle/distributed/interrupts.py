"""What Ctrl-C does to a rank, also while it waits where no error could tell the others that it ends."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Set what Ctrl-C does to this process; the end of the block restores what it did before."""

    before: Any = None  # the handler to restore, if another one is set

    def end_all(self) -> None:
        """End this process at once, also where MPI waits and keeps Python's lock; its launcher ends the others."""
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._become(signal.SIG_DFL)

    def ignore(self) -> None:
        self._become(signal.SIG_IGN)

    def restore(self) -> None:
        before, self.before = self.before, None
        if before is not None:
            signal.signal(signal.SIGINT, before)

    def _become(self, handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, handler)
            if self.before is None:
                self.before = before

    def __enter__(self) -> Interrupts:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()
