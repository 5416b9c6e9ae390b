"""What workers run in tests: functions that a process can import quickly."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import numpy as np

from needle.backend.blas import worker_count
from needle.distributed import current_communicator
from needle.distributed.processes import worker_rank


class Unpicklable(Exception):
    """An error that holds what cannot be pickled."""

    def __init__(self, message):
        super().__init__(message)
        self.function = lambda: message


class NotLoadable(Exception):
    """An error that pickle cannot make again from its `args`."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def describe(shared, same):
    """What every rank sees: a dict by rank 0."""
    communicator = current_communicator()
    array = np.arange(300_000.0) * (communicator.rank + 1)
    communicator.all_reduce(array)
    ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    drawn = [np.random.randint(1 << 30), random.getrandbits(30)]
    seen = [worker_rank(), os.getpid(), worker_count(), *drawn, shared is same, ignores]
    described = communicator.all_gather(np.array([seen], float))  # None is NaN
    communicator.start_all_reduce(np.ones(1_000_000))  # which goes on until all return
    return array, described, open_files()


def open_files():
    """The files in /dev/shm that this process has in its memory and that have a name."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return [line for line in file if "/dev/shm/" in line and "(deleted)" not in line]


def misbehave(what, rank=1):
    """Exchange for a long time, while one rank does something else."""
    communicator = current_communicator()
    communicator.barrier()
    if what == "stop":
        communicator.timeout = 0.3
    if communicator.rank == rank:
        DEEDS[what]()
        return
    for _ in range(3000):
        communicator.all_reduce(np.ones(3))
        time.sleep(0.01)


def raises(error):
    def deed():
        raise error

    return deed


DEEDS = {
    "raise": raises(LookupError("mine")),
    "unpicklable": raises(Unpicklable("mine")),
    "not loadable": raises(NotLoadable(1, 2)),
    "exit": lambda: sys.exit(3),
    "exit at once": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "return": lambda: None,
    "other call": lambda: current_communicator().broadcast(np.ones(3)),
}


def end_late():
    """Rank 0 returns at once; the others fail later."""
    if current_communicator().rank:
        time.sleep(0.2)
        raise LookupError("late")


def hang():
    """Rank 0 returns; the others write a line, and do not."""
    communicator = current_communicator()
    communicator.timeout = None
    if communicator.rank:
        sys.stdout.write("written\n")
    communicator.barrier()
    if communicator.rank:
        time.sleep(600)


def nothing():
    pass
