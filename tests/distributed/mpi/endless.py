"""A program for `mpiexec`: ranks that sum for ever, in `join(timeout=SECONDS)`. Rank 0 says when they have begun."""

import os
import sys

import numpy as np

from needle import distributed

if __name__ == "__main__":
    with distributed.join(timeout=float(sys.argv[1])) as communicator:
        array = np.zeros(1 << 16)
        communicator.all_reduce(array)
        if communicator.rank == 0:
            os.write(1, b"begun\n")
        while True:
            communicator.all_reduce(array)
