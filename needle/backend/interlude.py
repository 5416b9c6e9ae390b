"""What a thread does between the chunks of a long computation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["between_chunks", "interlude"]


class _Interlude(threading.local):
    call: Callable[[], object] = bool  # which does nothing


interlude = _Interlude()


@contextmanager
def between_chunks(call: Callable[[], object]) -> Iterator[None]:
    """Let loops over chunks that this thread computes call `call()` now and then, until the block ends.

    An error that it raises ends the computation.
    """
    before = interlude.call
    try:
        try:
            interlude.call = call
            yield
        finally:
            interlude.call = before
    finally:  # once more: an interrupt may come before the line above
        interlude.call = before
