"""Loops over chunks of work on the CPU, shared by threads.

NumPy releases Python's lock while it computes, so Python threads can compute side by side. BLAS brings threads of its
own, which serve one product at a time and spin for some milliseconds after it, keeping their cores from everyone else.
So while a loop runs, BLAS is limited to one thread, and the loop uses as many threads as BLAS was allowed
(OMP_NUM_THREADS and its kin, threadpoolctl.threadpool_limits).
"""

from __future__ import annotations

import os
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import cached_property
from typing import Any

from needle.backend.blas import drop_limit, hold_limit, worker_count
from needle.backend.polling import polling

__all__ = ["parallel_for", "start_thread"]


def _new_queue() -> Any:
    """An empty queue on which threads can wait."""
    from queue import SimpleQueue  # the import takes a millisecond, which programs on one thread save

    return SimpleQueue()


def start_thread(thread: threading.Thread, failed: Callable[[RuntimeError], object]) -> None:
    """Start a thread, or call `failed` with the error that says why it cannot be started.

    Another thread does it, because no interrupt reaches that: one within `Thread.start` would leave a thread that waits
    for ever.
    """

    def start() -> None:
        try:
            thread.start()
        except RuntimeError as error:
            failed(error)

    start_new_thread(start, ())


class _Task:
    """A loop body and its chunks; each thread takes the next chunk when it is free."""

    def __init__(self, body: Callable[[Any], None], chunks: list[Any]) -> None:
        self.body: Any = body
        self.chunks = deque(chunks)
        self.error: BaseException | None = None
        self.entered: list[None] = []  # one entry per thread of the pool that has begun to help
        self.left: list[None] = []  # one entry per thread of the pool that has ended
        self.has_ended = False  # whether `_end` has run to its end
        self.done: Any = None  # once threads may help, a queue with the entries of `left`, to wake the caller

    def run(self) -> None:
        """Process chunks until none is left, or one fails."""
        while True:
            try:
                chunk = self.chunks.popleft()
            except IndexError:
                return
            try:
                self.body(chunk)
                polling.poll()
            except BaseException as error:
                self._stop(error)
                return

    def help(self, context: Context) -> None:
        """`run` in a thread of the pool, in the caller's context: np.errstate lives there."""
        self.entered.append(None)
        try:
            context.run(self.run)
        finally:
            self.left.append(None)
            self.done.put(None)

    def finish(self) -> None:
        """Begin no further chunk, and wait for those that threads of the pool have begun.

        An interrupt meanwhile is kept in `error`. A thread that comes later finds no chunk.
        """
        self.chunks.clear()
        while len(self.left) < len(self.entered):
            try:
                self.done.get()
            except BaseException as error:
                self._stop(error)
        self.body = None  # the queue may still hold this task, but no arrays

    def _stop(self, error: BaseException) -> None:
        self.error = error
        self.chunks.clear()


class _ThreadPool:
    """Daemon threads that wait for tasks, started when they are first needed, and that help one task at a time."""

    def __init__(self) -> None:
        self.task: dict[str, _Task] = {}  # "current": the task that the threads help with
        self.wanted = 0  # threads
        self.serving: dict[int, object] = {}  # number -> the thread that serves under it

    @cached_property
    def tasks(self) -> Any:
        """The queue of (task, context) that the threads read."""
        return _new_queue()

    def help(self, task: _Task, count: int) -> None:
        """Have up to `count` threads help with a task; fewer if no more can be started, none if they help another."""
        if self.task.setdefault("current", task) is not task:
            return
        tasks = self.tasks  # made here, before a thread may ask for it
        task.done, self.wanted = _new_queue(), max(self.wanted, count)
        with suppress(RuntimeError):
            for _ in range(len(self.serving), count):
                start_thread(threading.Thread(target=self._serve, name="needle", daemon=True), bool)
        for _ in range(count):
            tasks.put((task, copy_context()))

    def release(self, task: _Task) -> None:
        """The end of `help`."""
        if self.task.get("current") is task:
            del self.task["current"]

    def _serve(self) -> None:
        me = object()
        if not any(self.serving.setdefault(number, me) is me for number in range(self.wanted)):
            return  # one thread too many: after an interrupt `help` did not know that it had started this one
        while True:
            task, context = self.tasks.get()
            task.help(context)
            del task, context  # keep no array alive while waiting


_pool = _ThreadPool()


def _reset_after_fork() -> None:
    """Give a forked child a new pool, since none of its parent's threads exist there."""
    global _pool
    _pool = _ThreadPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def parallel_for(
    body: Callable[[Any], None], chunks: Iterable[Any], uses_blas: bool = True, shared: bool = True
) -> None:
    """Call `body` for each chunk on `worker_count()` threads, in no fixed order.

    `uses_blas`: whether `body` calls BLAS, which is limited to one thread meanwhile. Without `shared`, and in nested or
    concurrent calls, the calling thread computes all chunks: a hand-over takes 50 µs, and work of less than 0.5 ms
    takes longer if shared. An error of `body` is raised here; chunks not yet begun are dropped.
    """
    chunks = list(chunks)
    shared = shared and len(chunks) > 1
    count = worker_count() if uses_blas or shared else 1
    if count == 1:
        for chunk in chunks:
            body(chunk)
            polling.poll()
        return
    task, pool = _Task(body, chunks), _pool
    try:
        try:
            _run(task, pool, min(count, len(chunks)) - 1 if shared else 0, uses_blas)
        finally:
            _end(task, pool)
    finally:
        if not task.has_ended:  # once more: an interrupt has come in `_end`, too
            _end(task, pool)
    error, task.error = task.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error, task, body, chunks  # the traceback holds this frame: no cycle may keep the arrays alive


def _run(task: _Task, pool: _ThreadPool, helpers: int, uses_blas: bool) -> None:
    if uses_blas:
        hold_limit(task)
    if helpers > 0:
        pool.help(task, helpers)
    task.run()


def _end(task: _Task, pool: _ThreadPool) -> None:
    """End a task, whatever an interrupt left undone; may be repeated."""
    task.finish()
    pool.release(task)
    drop_limit(task)
    task.has_ended = True
