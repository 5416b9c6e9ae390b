"""Ranks with a GPU each, played by null devices, exchange arrays by CuPy's NCCL, played on sockets."""

from __future__ import annotations

import pytest

from tests.distributed.mpi import exchanges
from tests.distributed.mpi.ranks import run
from tests.distributed.threads import in_shared_memory, run_ranks
from tests.gpu.null import device

PATIENCE = 180  # seconds: CuPy is loaded, and g++ compiles its kernels in the first run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("late", [False, True])
def test_the_exchanges_have_the_bits_of_shared_memory(size, late):
    expected = run_ranks(size, exchanges.main, in_shared_memory)
    for (ours, requests), theirs in zip(run(size, "gpu", "exchange", late, timeout=PATIENCE), expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert not [name for name in ours if ours[name] != theirs[name]]
        assert requests
