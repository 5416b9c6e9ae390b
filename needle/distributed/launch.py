"""Run one program in several processes that exchange arrays."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, TypeVar

from needle import check
from needle.backend import default_device, get_rng_state, set_default_device, set_rng_state
from needle.backend.blas import limited_to, worker_count
from needle.backend.communicator import Communicator, current_communicator, using
from needle.distributed.processes import NAME, UNGUARDED, Group, worker_rank
from needle.distributed.waiting import TIMEOUT

__all__ = ["Copies", "NotImportable", "check_startable", "launch", "started"]

R = TypeVar("R")
_groups: dict[str, object] = {}  # "current": the group that this process has started


def launch(main: Callable[..., R], workers: int, args: Sequence[Any] = (), timeout: float | None = TIMEOUT) -> R:
    """Call `main(*args)` in `workers` processes at the same time; returns what it returns in this one, rank 0.

    Within `main`, `current_communicator()` knows the rank and exchanges arrays with the others. All begin with the
    state of NumPy's global random stream here, and each computes on its share of the threads. The other processes
    import the main file of the program: it must call `launch` below `if __name__ == "__main__":`. `main` and `args` are
    pickled. With `workers=1`, `main` is called directly.

    An error of any rank ends all of them and is raised here; that of a worker has the traceback there as its cause.
    Rank 0 waits for the others `timeout` seconds at a time, in an exchange or for their return; None: without a limit.

    Raises TypeError if `main` is not callable or cannot be pickled, ValueError if `workers` is below 1 or `timeout` not
    above 0, RuntimeError within other workers, or if a worker dies, and TimeoutError if one has hung for so long.
    """
    workers = check.integer("launch", "workers", workers, least=1)
    if timeout is not None:
        timeout = check.number("launch", "timeout", timeout, above=0)
    if not callable(main):
        raise TypeError(f"launch: main must be a function, but got {main!r}")
    if workers == 1:
        return main(*args)
    with started(workers, main, *args, timeout=timeout):
        return main(*args)


@contextmanager
def started(
    workers: int, function: Callable[..., Any], *args: Any, caller: str = "launch", timeout: float | None = TIMEOUT
) -> Iterator[Communicator]:
    """Start `workers` - 1 processes that call `function(*args)`, and use rank 0's communicator until the block ends.

    All arguments are one pickle, made before anything starts, so what is the same object here is one there. At the end
    of the block the workers must have returned, or return by themselves. `caller` begins the messages of errors, and
    `timeout` is that of `launch`.
    """
    check_startable(caller, workers)
    payload = _pickled(caller, function, args)
    me, group = object(), None
    try:
        try:
            if _groups.setdefault("current", me) is not me:
                raise RuntimeError(f"{caller}: a process has one group of workers at a time, but got a second call")
            threads = max(1, worker_count() // workers)
            with limited_to(threads):
                group = Group(caller, workers, timeout)
                group.start(payload, threads)
                del payload
                with using(group.communicator):
                    yield group.communicator
                    group.finish()
        finally:
            _end(group, me)
    finally:  # once more: an interrupt may come before the line above, or in it
        _end(group, me)


def _end(group: Group | None, me: object) -> None:
    if _groups.get("current") is me:
        if group is not None:
            group.end()
        del _groups["current"]


def check_startable(caller: str, workers: int) -> None:
    """Raise RuntimeError where no workers can be started, ValueError if they could not find the main file."""
    import multiprocessing

    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):  # multiprocessing imports the main file
        if process.name.startswith(NAME):
            sys.exit(UNGUARDED)
        raise RuntimeError(
            f'{caller}: workers must be started below `if __name__ == "__main__":`, but the call runs when a process '
            "imports the main file"
        )
    communicator, own_rank = current_communicator(), worker_rank()
    size = communicator.size
    if own_rank is not None or size > 1:
        rank = communicator.rank if own_rank is None else own_rank
        raise RuntimeError(f"{caller}: workers cannot start workers, but rank {rank} of {size} wants {workers}")
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if main.__spec__ is None and path is not None and not os.path.exists(path):
        raise ValueError(f"{caller}: workers import the main file, which must exist, but got {path!r}")


def _pickled(caller: str, function: Callable[..., Any], args: Sequence[Any]) -> memoryview:
    """What a worker needs. Raises TypeError if it cannot be pickled."""
    content = io.BytesIO()
    try:
        Copies(f"{caller}: what the workers get", content).dump((function, args, _Beginning()))
    except NotImportable as error:
        raise TypeError(str(error)) from None
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"{caller}: what the workers get must be picklable (a lambda or a function within a function is not), but "
            f"pickle says: {error}"
        ) from error
    return content.getbuffer()


class NotImportable(TypeError):
    """Something was defined where other processes cannot find it."""


class Copies(pickle.Pickler):
    """A pickler that refuses functions and classes that only this process knows; `what` begins the message."""

    def __init__(self, what: str, file: Any, **options: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, **options)
        self.what = what
        main = sys.modules["__main__"]
        name, path = getattr(main.__spec__, "name", None), getattr(main, "__file__", None)
        # multiprocessing imports what `python -m` runs, or a file, but no `__main__.py` of a package or an archive.
        self.is_importable = path is not None if name is None else name.rpartition(".")[2] != "__main__"

    def persistent_id(self, value: Any) -> None:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__" and not self.is_importable:
            where = "an interactive session" if sys.modules["__main__"].__spec__ is None else "a file __main__.py"
            raise NotImportable(
                f"{self.what} must be of functions and classes that other processes can import, but "
                f"{value.__qualname__} is of {where}; put it into a file of its own"
            )


class _Beginning:
    """What a worker continues: the random streams and the default device of rank 0."""

    def __init__(self) -> None:
        import random

        self.numpy, self.python, self.device = get_rng_state(), random.getstate(), default_device()

    def __call__(self) -> None:
        import random

        set_rng_state(self.numpy)
        random.setstate(self.python)
        set_default_device(self.device)
