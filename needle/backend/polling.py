"""What a thread does between the chunks of a long computation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["between_chunks", "polling"]


class _Polling(threading.local):
    poll: Callable[[], object] = bool  # which does nothing


polling = _Polling()


@contextmanager
def between_chunks(call: Callable[[], object]) -> Iterator[None]:
    """Let loops over chunks that this thread computes call `call()` now and then, until the block ends.

    An error that it raises ends the computation.
    """
    before = polling.poll
    try:
        try:
            polling.poll = call
            yield
        finally:
            polling.poll = before
    finally:  # once more: an interrupt may come before the line above
        polling.poll = before
