"""Loops over chunks of work on the CPU, shared by threads.

NumPy releases Python's lock while it computes, so Python threads can compute side by side. BLAS brings threads of its
own, which serve one product at a time and spin for some milliseconds after it, keeping their cores from everyone else.
So while a loop runs, BLAS is limited to one thread, and the loop uses as many threads as BLAS was allowed
(OMP_NUM_THREADS and its kin, threadpoolctl.threadpool_limits).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import cache, cached_property
from typing import Any

__all__ = ["parallel_for", "worker_count"]


def _new_queue() -> Any:
    """An empty queue on which threads can wait."""
    from queue import SimpleQueue  # the import takes a millisecond, which programs on one thread save

    return SimpleQueue()


class _Task:
    """A loop body and its chunks; each thread takes the next chunk when it is free."""

    def __init__(self, body: Callable[[Any], None], chunks: list[Any]) -> None:
        self.body, self.chunks = body, deque(chunks)
        self.error: BaseException | None = None
        self.finished: list[None] = []  # one entry per thread of the pool that is done with this task
        self.done = _new_queue()  # the same entries again, to wake the caller

    def run(self) -> None:
        """Process chunks until none is left, or one fails."""
        while True:
            try:
                chunk = self.chunks.popleft()
            except IndexError:
                return
            try:
                self.body(chunk)
            except BaseException as error:
                self._stop(error)
                return

    def help(self, context: Context) -> None:
        """`run` in a thread of the pool, in the caller's context: np.errstate lives there."""
        context.run(self.run)
        self.finished.append(None)
        self.done.put(None)

    def wait(self, count: int) -> None:
        """Wait until `count` threads of the pool are done. An interrupt stops the loop and is raised afterwards."""
        while len(self.finished) < count:
            try:
                self.done.get()
            except BaseException as error:
                self._stop(error)

    def _stop(self, error: BaseException) -> None:
        self.error = error
        self.chunks.clear()


class _ThreadPool:
    """Daemon threads that wait for tasks, started when they are first needed."""

    def __init__(self) -> None:
        self.busy, self.count = threading.Lock(), 0
        self.blas_threads = 0  # during a loop: the number of threads that BLAS had before; else 0

    @cached_property
    def tasks(self) -> Any:
        """The queue of (task, context) that the threads read."""
        return _new_queue()

    def submit(self, task: _Task, count: int) -> int:
        """Have up to `count` threads help with a task. Returns their number: less if no more can be started."""
        tasks = self.tasks
        with suppress(RuntimeError):
            for _ in range(self.count, count):
                threading.Thread(target=self._serve, name="needle", daemon=True).start()
                self.count += 1
        for _ in range(min(count, self.count)):
            tasks.put((task, copy_context()))
        return min(count, self.count)

    def _serve(self) -> None:
        while True:
            task, context = self.tasks.get()
            task.help(context)
            del task, context  # keep no array alive while waiting


_pool = _ThreadPool()


def _reset_after_fork() -> None:
    """Give a forked child a new pool, since none of its parent's threads exist there."""
    global _pool
    blas_threads, _pool = _pool.blas_threads, _ThreadPool()
    if blas_threads:  # the fork happened during a loop
        for library in _blas_libraries():
            library.set_num_threads(blas_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


@cache
def _blas_libraries() -> list[Any]:
    """threadpoolctl's controllers of the BLAS libraries in this process."""
    from threadpoolctl import ThreadpoolController  # the import takes as long as a step of a small network

    libraries: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


@contextmanager
def _blas_on_one_thread() -> Iterator[None]:
    """Limit BLAS to one thread: like ThreadpoolController.limit, in half the time.

    This has no effect while another thread holds a threadpoolctl limit: BLAS obeys that one.
    """
    counts = [(library, library.num_threads) for library in _blas_libraries()]
    for library, _ in counts:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, count in counts:
            library.set_num_threads(count)
            # Since 3.8 threadpoolctl obeys only the thread that first set a number, until it is cleared.
            getattr(library, "clear_controlling_thread", bool)()


def worker_count() -> int:
    """The number of threads of a loop: as many as BLAS may use, or 1 if BLAS does not say (Accelerate on macOS)."""
    libraries = _blas_libraries()
    return _pool.blas_threads or (int(libraries[0].num_threads) if libraries else 1)


def parallel_for(body: Callable[[Any], None], chunks: Iterable[Any], uses_blas: bool = True) -> None:
    """Call `body` for each chunk on `worker_count()` threads, in no fixed order.

    `uses_blas`: whether `body` calls BLAS; if not, a single chunk runs without limiting BLAS. Nested and concurrent
    calls run serially in the calling thread. An error of `body` is raised here; chunks not yet begun are dropped.
    """
    chunks, pool = list(chunks), _pool
    count = worker_count() if uses_blas or len(chunks) > 1 else 1
    if count == 1 or not pool.busy.acquire(blocking=False):
        for chunk in chunks:
            body(chunk)
        return
    try:
        pool.blas_threads = count  # `worker_count` stays the same while BLAS has one thread
        task = _Task(body, chunks)
        with _blas_on_one_thread():
            helpers = pool.submit(task, min(count, len(chunks)) - 1)
            task.run()
            task.wait(helpers)
    finally:
        pool.blas_threads = 0
        pool.busy.release()
    error, task.error = task.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error, task, body, chunks  # the traceback holds this frame: no cycle may keep the arrays alive
