"""A rank of `tests.distributed.mpi.ranks.run`: calls the `main` of a program, and leaves what it returns in a file."""

from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from pathlib import Path

from mpi4py import MPI

from needle import tuning
from needle.backend.communicator import using
from needle.distributed import endings
from needle.distributed.mpi import MpiCommunicator


def main(program, folder):
    arguments, limits = pickle.loads((folder / "arguments").read_bytes())
    for name, value in limits.items():
        setattr(tuning, name, value)
    communicator = MpiCommunicator(MPI.COMM_WORLD)
    try:
        module = importlib.import_module(f"tests.distributed.mpi.{program}")
        with using(communicator):
            result = module.main(communicator, *arguments)
        communicator.leave()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        communicator.fail()
        endings._wait_until_read()
        MPI.COMM_WORLD.Abort(1)
    (folder / f"{communicator.rank}.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
