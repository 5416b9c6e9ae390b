"""SharedGradients on MPI: the bits of shared memory, on every rank."""

from __future__ import annotations

from needle import tuning
from tests.distributed.mpi import shared_gradients
from tests.distributed.mpi.ranks import run
from tests.distributed.threads import in_shared_memory, run_ranks

SIZE = 3


def test_gradients_have_the_bits_of_shared_memory(monkeypatch):
    for name, value in shared_gradients.LIMITS.items():
        monkeypatch.setattr(tuning, name, value)
    limits = {**shared_gradients.LIMITS, "MPI_WHOLE_BYTES": 256, "MPI_SHARE_BYTES": 512}
    expected = run_ranks(SIZE, shared_gradients.main, in_shared_memory)
    results = run(SIZE, "shared_gradients", limits=limits)
    for name, values in expected[0].items():
        assert [rank[name] == values for rank in [*expected, *results]] == [True] * 2 * SIZE, name
