"""Captured steps of ranks of MPI."""

from __future__ import annotations

import pytest

from tests.distributed.mpi import captured
from tests.distributed.mpi.ranks import run, start

REPLAYS = """
import sys
from needle.distributed import join
from tests.distributed.mpi.captured import misbehave
with join():
    misbehave(sys.argv[1])
"""


def test_ranks_capture():
    """Sums of two ranks at once, and in pieces that go on meanwhile."""
    limits = {**captured.LIMITS, "MPI_PAIR_BYTES": 256, "MPI_SHARE_BYTES": 512}
    for found in run(2, "captured", limits=limits, timeout=150):
        captured.check(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("raise", "LookupError: mine\nThis was rank 1 of 2; all end.\n"),
        ("stop", "TimeoutError: all_reduce: all ranks must come within 0.3 s, but rank 1 has not\n"),
        ("kill", ""),
        ("return", "and rank 1 has returned"),
    ],
)
def test_a_rank_that_fails_ends_those_that_replay(what, words):
    with start(2, ["python", "-c", REPLAYS, what]) as ranks:
        assert ranks.wait() != 0
        assert words in ranks.errors
        assert ranks.errors.count("Traceback") == bool(words)
