"""The communicator on MPI: what it returns has the bits of the communicator in shared memory, on every rank."""

from __future__ import annotations

import re

import pytest

from needle.backend.communicator import Alone
from tests.distributed.mpi import exchanges
from tests.distributed.mpi.ranks import run
from tests.distributed.threads import in_shared_memory, run_ranks

# Arrays go whole up to 256, 128 or 85 bytes, and in pieces of shares of 512.
LIMITS = {"MPI_WHOLE_BYTES": 256, "MPI_PAIR_BYTES": 256, "MPI_SHARE_BYTES": 512}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_engine_has_the_bits_of_shared_memory(size):
    expected = [exchanges.main(Alone())] if size == 1 else run_ranks(size, exchanges.main, in_shared_memory)
    for ours, theirs in zip(run(size, "exchanges", limits=LIMITS), expected, strict=True):
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if ours[name] != theirs[name]]
        assert not different


DIFFER = r"CallsDiffer: (\w+): all ranks must make the same calls, but rank {} (calls \1|has returned).*, and rank .*"
FAILED = r"RuntimeError: all_reduce: all ranks must go on, but rank \d has failed"


@pytest.mark.parametrize("size", [2, 3])
def test_calls_that_differ_and_ranks_that_fail_are_errors_on_all(size):
    by_rank = run(size, "refusals")
    for facts in [results.pop("facts") for results in by_rank]:
        assert facts == {
            "pieces are few": True,
            "kinds are few": True,
            "sums in a row": True,
            "refused": [
                "all_reduce: array must be writable, but got a read-only one of shape (2,)",
                f"broadcast: root must lie in [0, {size - 1}], but got -1",
            ],
            "sums": {size * (size + 1) / 2},
            "kept": [],
        }
    for name in by_rank[0]:
        errors = [results[name] for results in by_rank]
        own = [error for rank, error in enumerate(errors) if re.fullmatch(DIFFER.format(rank), error)]
        others = [error for error in errors if re.fullmatch(FAILED, error)]
        assert len(own) + len(others) == size, errors
        assert bool(own) == ("fail" not in name), errors  # the third rank may hear of the failure first
        assert any("has returned" in error for error in errors) == ("returned" in name), errors
