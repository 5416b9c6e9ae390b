"""The communicator on MPI: what it returns has the bits of the communicator in shared memory, on every rank."""

from __future__ import annotations

import pytest

from needle.backend.communicator import Alone
from tests.distributed.mpi import exchanges
from tests.distributed.mpi.ranks import run
from tests.distributed.threads import in_shared_memory, run_ranks

# Arrays go whole up to 256, 128 or 85 bytes, and in pieces of shares of 512.
LIMITS = {"MPI_WHOLE_BYTES": 256, "MPI_SHARE_BYTES": 512}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_engine_has_the_bits_of_shared_memory(size):
    expected = [exchanges.main(Alone())] if size == 1 else run_ranks(size, exchanges.main, in_shared_memory)
    for ours, theirs in zip(run(size, "exchanges", limits=LIMITS), expected, strict=True):
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if ours[name] != theirs[name]]
        assert not different
