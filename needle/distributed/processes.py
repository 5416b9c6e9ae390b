"""The processes of a group: rank 0 starts the others, watches them, and ends them, whatever happens.

The others are started by `multiprocessing`'s spawn: they import the program's main file and run a function. The memory
that they share has no name and the processes end with rank 0, so nothing can be left, not even if all are killed.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from needle.backend.blas import limited_to
from needle.backend.communicator import using
from needle.backend.parallel import start_thread
from needle.distributed.shared_memory import SharedMemoryCommunicator, memory_bytes
from needle.distributed.waiting import late, stopped, wait_until

__all__ = ["Group", "WorkerDied", "WorkerTraceback", "worker_rank"]

NAME = "needle-worker"  # of the processes
UNGUARDED = 97  # the exit code of a worker whose import of the main file comes to start workers itself
PATIENCE = 5.0  # seconds to wait for what takes milliseconds: the error of a rank that has failed, the end of a process
GRACE = 0.3  # seconds that workers have to end by themselves after a failure
LOOK = 0.5  # seconds between two looks at who is alive; the usual death is noticed at once

_this_process: dict[str, int] = {}  # "rank": the number of this worker; empty in other processes


class WorkerDied(RuntimeError):
    """A worker was killed, or left without an error of its own: memory may have run out."""


class WorkerTraceback(Exception):
    """The cause of an error that a worker raised: its text is the traceback there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def worker_rank() -> int | None:
    """The rank of this process if it is a worker that rank 0 has started."""
    return _this_process.get("rank")


class Group:
    """The processes of ranks 1 to `size` - 1, as rank 0 sees them; `caller` begins the messages of errors.

    Rank 0 alone has a limit, `timeout` seconds, to its waits: a worker that hangs keeps it waiting, too, and it may
    itself be held by who uses it, as in a debugger.
    A thread starts and watches them, since no interrupt reaches it: none can come between a process and its entry here.
    `end` must follow, whatever happens, and may be repeated.
    """

    def __init__(self, caller: str, size: int, timeout: float | None = None) -> None:
        import multiprocessing

        self.caller, self.size, self.timeout = caller, size, timeout
        self.context = multiprocessing.get_context("spawn")
        self.memory = self.context.RawArray("B", memory_bytes(size))
        self.communicator = SharedMemoryCommunicator(0, size, self.memory, lambda rank: self.failure(), timeout)
        self.processes: dict[int, Any] = {}
        self.connections: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}  # rank -> error, the first one first; 0: what kept us from starting
        self.is_ending = False
        self.has_begun = False  # whether the thread has
        self.are_started = threading.Event()  # the processes
        self.have_ended = threading.Event()
        self.is_decided = threading.Event()  # whether all have returned, or one has failed

    def start(self, payload: memoryview, threads: int) -> None:
        """Start the workers; each runs `_work` with the pickle `payload` on `threads` threads."""
        shared = self.context.RawArray("B", len(payload))
        memoryview(shared).cast("B")[:] = payload  # RawArray would make a number of each byte: 0.3 µs and 8 bytes
        thread = threading.Thread(target=self._serve, args=(shared, threads), name="needle-workers", daemon=True)
        start_thread(thread, self._give_up)
        self.are_started.wait()

    def finish(self) -> None:
        """Wait until all workers have returned. Raises the error of the first that failed."""
        self.communicator.leave()
        wait_until(self.is_decided.is_set, timeout=self.timeout, too_late=self._too_late)
        if self.errors:
            error = self.failure()
            raise error
        for process in self.processes.values():
            process.join(PATIENCE)

    def _too_late(self, seconds: float) -> BaseException:
        return late(self.caller, "return", [rank for rank, x in self.processes.items() if x.is_alive()], seconds)

    def failure(self) -> BaseException:
        """The error of the first worker that failed."""
        deadline = time.monotonic() + PATIENCE
        while not (self.errors or self.have_ended.is_set()) and time.monotonic() < deadline:
            time.sleep(1e-3)
        for error in self.errors.values():
            return error
        return RuntimeError(f"{self.caller}: all ranks must go on, but one has failed")

    def end(self) -> None:
        """End all processes that still run: asked to, then told to, then killed."""
        self.is_ending = True
        self.communicator.fail()
        while self.has_begun and not self.are_started.is_set():
            time.sleep(1e-3)
        for last_resort, patience in (("terminate", GRACE), ("kill", 1.0), ("", PATIENCE)):
            deadline = time.monotonic() + patience
            for process in self.processes.values():
                process.join(max(0.0, deadline - time.monotonic()))
                if process.is_alive() and last_resort:
                    getattr(process, last_resort)()
        if self.has_begun:
            self.have_ended.wait(PATIENCE)
        for connection in self.connections.values():
            connection.close()
        self.communicator.failure = stopped  # no longer ours, so no cycle keeps the memory

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _serve(self, shared: Any, threads: int) -> None:
        """Start the workers, receive how each ends, and tell all ranks once one has failed."""
        self.has_begun = True
        try:
            if not self.is_ending:
                self._start_all(shared, threads)
        except Exception as error:
            self._give_up(error)
        del shared
        self.are_started.set()
        try:
            self._watch()
        finally:
            self.have_ended.set()
            self.is_decided.set()

    def _start_all(self, shared: Any, threads: int) -> None:
        if hasattr(signal, "pthread_sigmask"):  # a process inherits this: Ctrl-C waits until `_work` ignores it
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        for rank in range(1, self.size):
            ours, theirs = self.context.Pipe(duplex=False)
            arguments = (rank, self.size, self.memory, shared, theirs, os.getpid(), threads)
            process = self.context.Process(target=_work, args=arguments, name=f"{NAME}-{rank}", daemon=True)
            process.start()
            theirs.close()
            self.processes[rank], self.connections[rank] = process, ours

    def _give_up(self, error: Exception) -> None:
        """Keep the error of a start that failed."""
        self.errors[0] = error
        self.communicator.fail()
        self.is_decided.set()
        self.are_started.set()
        if not self.has_begun:
            self.have_ended.set()

    def _watch(self) -> None:
        from multiprocessing.connection import wait

        rest = dict(self.connections)
        while rest:
            ready = wait(list(rest.values()), LOOK)
            for rank, connection in list(rest.items()):
                if connection in ready or not self.processes[rank].is_alive():
                    self._receive(rank, connection)
                    del rest[rank]

    def _receive(self, rank: int, connection: Any) -> None:
        outcome: Any = None
        with suppress(EOFError, OSError):
            if connection.poll():
                outcome = connection.recv()
        if outcome is None:
            self.processes[rank].join(PATIENCE)
            self.errors[rank] = self._death(rank, self.processes[rank].exitcode)
        elif outcome["text"]:
            self.errors[rank] = self._remote_error(rank, **outcome)
        if self.errors:
            self.communicator.fail()
            self.is_decided.set()

    def _death(self, rank: int, code: int | None) -> BaseException:
        who = f"worker {rank} of {self.size}"
        if code == UNGUARDED:
            return RuntimeError(
                f'{self.caller}: the main file must start workers below `if __name__ == "__main__":` only, since each '
                f"worker imports that file, but {who} came to start workers itself"
            )
        if code is not None and code < 0:
            with suppress(ValueError):
                return WorkerDied(
                    f"{self.caller}: workers must live until the end, but {who} was killed by "
                    f"{signal.Signals(-code).name}"
                )
        return WorkerDied(
            f"{self.caller}: workers must live until the end, but {who} ended with exit code {code}; if it had not "
            "begun, its error is printed above"
        )

    def _remote_error(self, rank: int, error: bytes, summary: str, text: str) -> BaseException:
        import pickle

        result: BaseException = KeyboardInterrupt()
        with suppress(Exception):  # a class that is not known here, or cannot be made from its arguments
            result = pickle.loads(error)
        if not isinstance(result, Exception):
            result = RuntimeError(
                f"{self.caller}: all ranks must run to the end, but worker {rank} of {self.size} raised {summary}"
            )
        result.__cause__ = WorkerTraceback(text)
        return result


# ---- in the worker ---------------------------------------------------------------------------------------------------


def _work(rank: int, size: int, memory: Any, payload: Any, connection: Any, parent: int, threads: int) -> None:
    """The whole life of a worker: call the function in `payload`, and report how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is rank 0's
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.closed:
        sys.stdout.reconfigure(line_buffering=True)  # no line is lost where this process is killed
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _this_process["rank"] = rank
    communicator = SharedMemoryCommunicator(rank, size, memory)
    try:
        with limited_to(threads), using(communicator):
            function, arguments, prepare = _unpickled(payload)
            del payload
            prepare()
            function(*arguments)
            del function, arguments
            communicator.leave()
    except BaseException as error:
        outcome = _report(error) if communicator.stopped_by is None else {"error": b"", "summary": "", "text": ""}
        communicator.fail()
        with suppress(OSError):
            connection.send(outcome)
        sys.exit(1)
    with suppress(OSError):  # rank 0 has ended, and so will this process
        connection.send({"error": b"", "summary": "", "text": ""})


def _unpickled(payload: Any) -> Any:
    import pickle

    try:
        return pickle.loads(memoryview(payload).cast("B"))
    except Exception as error:
        error.add_note("A worker imports the main file; what it gets must be found in there, or in another module.")
        raise


def _report(error: BaseException) -> dict[str, Any]:
    import pickle
    import traceback

    pickled = b""
    with suppress(Exception):
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    summary = traceback.format_exception_only(error)[0].strip()
    return {"error": pickled, "summary": summary, "text": "".join(traceback.format_exception(error))}


def _end_with(parent: int) -> None:
    """End this process once its parent has ended, in whichever way."""
    import multiprocessing
    from multiprocessing.connection import wait

    process = multiprocessing.parent_process()
    assert process is not None
    while not wait([process.sentinel], LOOK) and os.getppid() == parent:
        pass
    os._exit(1)
