"""Workers that exchange arrays of several sizes: `python -m tests.distributed.exchanging WORKERS SECONDS`.

Rank 0 prints "begun" once all have begun, and "end" at the end.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from needle.distributed import current_communicator, launch


def main(seconds):
    communicator = current_communicator()
    communicator.barrier()
    if communicator.rank == 0:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
    large, small = np.ones(200_000), np.ones(4)
    end = time.monotonic() + seconds
    stop = np.array(False)
    while not stop:
        request = communicator.start_all_reduce(large)
        communicator.all_reduce(small)
        request.wait()
        large /= communicator.size
        small /= communicator.size
        stop[...] = time.monotonic() >= end
        communicator.all_reduce(stop)
    assert (large == 1).all()


if __name__ == "__main__":
    launch(main, int(sys.argv[1]), (float(sys.argv[2]),))
    sys.stdout.write("end\n")
