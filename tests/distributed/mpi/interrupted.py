"""Ranks, one of which gets a SIGINT at a line of `join`: `python -m tests.distributed.mpi.interrupted RANK NUMBER`.

It comes before the first time that the line runs which is the NUMBER-th, from 0, of all that run. A rank writes the
line, or "all lines" where there are not so many.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

import numpy as np

from needle import distributed
from needle.distributed import endings, joining, launched, meeting

FILES = {module.__file__ for module in (endings, joining, meeting)}


def main(rank, number):
    joining.PATIENCE = 5.0  # Intel's launcher waits for a rank that is interrupted before MPI_Init
    if rank == launched().rank:
        interrupt_at(number)
    try:
        with distributed.join() as communicator:
            for array in (np.ones(3), np.ones(200_000)):
                communicator.all_reduce(array)
    except KeyboardInterrupt:  # outside of the block
        os.write(1, b"outside\n")
        raise


def interrupt_at(number):
    seen = set()

    def say_all():
        os.write(1, b"all lines\n")

    def trace(frame, event, arg):
        if frame.f_code.co_filename not in FILES:
            return None
        line = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and line not in seen:
            seen.add(line)
            if len(seen) == number + 1:
                atexit.unregister(say_all)
                os.write(1, f"{frame.f_code.co_name}:{frame.f_lineno}\n".encode())
                os.kill(os.getpid(), signal.SIGINT)
        return trace

    atexit.register(say_all)  # runs last
    sys.settrace(trace)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
