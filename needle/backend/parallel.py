"""Work on the CPU shared out over threads.

NumPy releases Python's lock while it computes, so that threads of Python compute side by side. BLAS has threads of its
own, which serve one product at a time and, idle, keep their cores busy for a while after it: whoever else wants to work
there waits. So BLAS computes each share of the work on one thread, and lends its number: there are as many shares at a
time as BLAS may use threads (OMP_NUM_THREADS and its kin, threadpoolctl.threadpool_limits).
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


def _queue() -> Any:
    """A queue at which threads can wait."""
    from queue import SimpleQueue  # takes a millisecond to import, which who works on one thread saves

    return SimpleQueue()


class _Task:
    """Work on some pieces, done by several threads, each of which takes the next piece when it is free."""

    def __init__(self, work: Callable[[Any], None], pieces: list[Any]) -> None:
        self.work, self.pieces = work, deque(pieces)
        self.error: BaseException | None = None
        self.ended: list[None] = []  # an entry for each helper that has come to the end
        self.bell = _queue()  # and another to tell who waits

    def run(self) -> None:
        """Take pieces until there are none."""
        while True:
            try:
                piece = self.pieces.popleft()
            except IndexError:
                return
            try:
                self.work(piece)
            except BaseException as error:
                self.error = error
                self.pieces.clear()
                return

    def help(self, context: Context) -> None:
        context.run(self.run)  # np.errstate is the context's
        self.ended.append(None)
        self.bell.put(None)

    def wait(self, count: int) -> None:
        """Until `count` helpers have come to the end; what interrupts the waiting is raised after that."""
        while len(self.ended) < count:
            try:
                self.bell.get()
            except BaseException as error:
                self.error = error
                self.pieces.clear()


class _Helpers:
    """Threads that wait for tasks; made as they are needed, and never ended."""

    def __init__(self) -> None:
        self.busy, self.count = threading.Lock(), 0
        self.lent = 0  # the number of threads that BLAS has lent, while it has lent them

    @cached_property
    def tasks(self) -> Any:
        """The queue of (task, context) at which the helpers wait."""
        return _queue()

    def ask(self, task: _Task, count: int) -> int:
        """Have up to `count` threads help with a task; how many there are, where no more can be started."""
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
            del task, context  # holds no array while it waits


_helpers = _Helpers()


def _forget() -> None:
    global _helpers
    lent, _helpers = _helpers.lent, _Helpers()
    if lent:  # during a share
        for library in _libraries():
            library.set_num_threads(lent)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a child of fork has none of its parent's threads


@cache
def _libraries() -> list[Any]:
    """threadpoolctl's controllers of the BLAS libraries of this process."""
    from threadpoolctl import ThreadpoolController  # takes as long to import as a step of a small network

    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@contextmanager
def _blas_on_one_thread() -> Iterator[None]:
    """BLAS on one thread until the block ends: what ThreadpoolController.limit does, in half of its time.

    While another thread is within threadpoolctl's limits this does nothing, and BLAS keeps to those.
    """
    counts = [(library, library.num_threads) for library in _libraries()]
    for library, _ in counts:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, given in counts:
            library.set_num_threads(given)
            # From 3.8 on threadpoolctl heeds only the thread that set a number first, until it is cleared.
            getattr(library, "clear_controlling_thread", bool)()


def worker_count() -> int:
    """On how many threads `share` works: as many as BLAS may use; 1 where a BLAS does not tell (macOS' Accelerate)."""
    libraries = _libraries()
    return _helpers.lent or (int(libraries[0].num_threads) if libraries else 1)


def parallel_for(work: Callable[[Any], None], pieces: Iterable[Any], uses_blas: bool = True) -> None:
    """Call `work` for each piece, shared out over `worker_count()` threads; in what order is not said.

    `uses_blas` tells whether work asks BLAS for any; if not, a single piece is done as it is. Within a share of other
    work, and while another thread shares out, this thread does all. What `work` raises is raised here; pieces that were
    not begun are left then.
    """
    pieces, helpers = list(pieces), _helpers
    count = worker_count() if uses_blas or len(pieces) > 1 else 1
    if count == 1 or not helpers.busy.acquire(blocking=False):
        for piece in pieces:
            work(piece)
        return
    try:
        helpers.lent = count  # what others are told while BLAS has one thread
        task = _Task(work, pieces)
        with _blas_on_one_thread():
            helping = helpers.ask(task, min(count, len(pieces)) - 1)
            task.run()
            task.wait(helping)
    finally:
        helpers.lent = 0
        helpers.busy.release()
    error, task.error = task.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error, task, work, pieces  # its traceback leads here: no circle keeps the arrays of what failed
