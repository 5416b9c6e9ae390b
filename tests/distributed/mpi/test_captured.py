"""Captured steps of ranks of MPI."""

from __future__ import annotations

from tests.distributed.mpi import captured
from tests.distributed.mpi.ranks import run


def test_ranks_capture():
    """Sums of two ranks at once, and in pieces that go on meanwhile."""
    for found in run(2, "captured", limits={**captured.LIMITS, "MPI_PAIR_BYTES": 256, "MPI_SHARE_BYTES": 512}):
        captured.check(found)
