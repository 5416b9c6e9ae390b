"""Whether arrays of GPUs go by NCCL is decided alike on all ranks; the exchanges themselves: tests/gpu/null."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from needle.backend.communicator import current_communicator
from needle.distributed import nccl
from tests.distributed.threads import run_ranks

XP = SimpleNamespace(cuda=SimpleNamespace(Stream=lambda **options: None))
A, B, C, NONE = ("a", 22707, ""), ("b", 22707, ""), ("c", 22707, ""), (0, "libnccl.so.2: no such file")


@pytest.fixture
def decided(monkeypatch):
    """By rank, (name of the GPU, version, why there is no NCCL): by what the ranks are connected, or the warnings."""
    monkeypatch.setattr(nccl, "gpu_name", lambda device: device.name)
    monkeypatch.setattr(nccl, "new_id", lambda: bytes(range(128)))
    monkeypatch.setattr(nccl, "Nccl", lambda device, *connection: SimpleNamespace(device=device, connection=connection))

    def decide(*gpus):
        def connect(communicator):
            device = SimpleNamespace(name=gpus[communicator.rank][0], current=nullcontext, xp=XP)
            return nccl.connected(communicator, wait_until, device)

        monkeypatch.setattr(nccl, "find_nccl", lambda: gpus[current_communicator().rank][1:])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = run_ranks(len(gpus), connect)
        return [result and result.nccl.connection for result in results], [str(entry.message) for entry in caught]

    return decide


def wait_until(is_done):
    while not is_done():
        pass


def test_gpus_of_their_own_are_connected(decided):
    connections, said = decided(A, B, C)
    assert connections == [(3, bytes(range(128)), rank) for rank in range(3)]
    assert said == []


@pytest.mark.parametrize(
    ("gpus", "problem"),
    [
        ([A, ("b", *NONE)], "rank 1 finds no NCCL: libnccl.so.2: no such file"),
        ([A, B, A], "ranks 0 and 2 have the same GPU"),
        ([("a", *NONE)] * 2, "ranks 0 and 1 have the same GPU"),
        ([A, ("b", 22901, "")], "ranks 0 and 1 have different versions of NCCL"),
    ],
)
def test_otherwise_arrays_go_through_the_host(decided, gpus, problem):
    """What installing NCCL would not change is said first."""
    connections, said = decided(*gpus)
    assert connections == [None] * len(gpus)
    assert said == [f"all_reduce: arrays of GPUs go through the host, because {problem}"]


def test_an_error_of_a_connection_is_raised(decided, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("cuda: NCCL must connect")

    monkeypatch.setattr(nccl, "Nccl", fails)
    with pytest.raises(RuntimeError, match="cuda: NCCL must connect"):
        decided(A, B)
