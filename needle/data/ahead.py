"""A thread that reads ahead of its reader."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

from needle.backend.parallel import start_thread

__all__: list[str] = []

T = TypeVar("T")


def read_ahead(source: Iterator[T], depth: int) -> Generator[T]:
    """The items of `source`, fetched by one thread up to `depth` ahead of the reader.

    The thread starts at the first `next()`. It waits only for a free slot, so closing this generator (on `break`, on an
    error in the loop, or by the garbage collector) stops the thread by adding one more slot. The queues are simple
    ones, on which a finalizer may call `put` in any thread at any time.
    """
    from queue import SimpleQueue  # imported when it is needed: the import takes a millisecond

    fetched: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()  # (item,), an error, or None at the end
    slots: SimpleQueue[None] = SimpleQueue()
    is_open, reader = True, os.getpid()

    def fetch() -> None:
        try:
            slots.get()
            while is_open:
                fetched.put((next(source),))
                slots.get()
        except StopIteration:
            fetched.put(None)
        except BaseException as error:  # every error is raised in the reader
            fetched.put(error)

    def stop() -> None:
        nonlocal is_open
        is_open = False
        slots.put(None)
        if thread.is_alive() and thread is not threading.current_thread():  # the garbage collector may run in `fetch`
            thread.join()

    thread = threading.Thread(target=fetch, name="needle-prefetch", daemon=True)
    try:
        try:
            for _ in range(depth):
                slots.put(None)
            start_thread(thread, fetched.put)
            while (outcome := fetched.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                slots.put(None)
                yield outcome[0]
                if os.getpid() != reader:  # the thread does not exist here
                    raise RuntimeError(
                        "DataLoader: an epoch with prefetch must be read by the process that began it, but got a "
                        "forked one; begin a new epoch there"
                    )
        finally:
            stop()
    finally:  # once more: an interrupt may come in `stop`, too
        stop()
