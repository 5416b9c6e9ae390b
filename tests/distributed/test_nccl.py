"""Whether arrays of GPUs go by NCCL is decided alike on all ranks; the exchanges themselves: tests/gpu/null."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from needle.distributed import nccl
from tests.distributed.threads import run_ranks

CUDA = SimpleNamespace(Stream=lambda **options: None)


def devices(*cards):
    """GPUs of ranks, each with a version of NCCL and a name."""
    xp = SimpleNamespace(cuda=CUDA)
    return [SimpleNamespace(version=version, name=name, current=nullcontext, xp=xp) for version, name in cards]


@pytest.fixture
def decided(monkeypatch):
    """Device of each rank -> the ids by which they are connected, or the warnings that say why they are not."""
    monkeypatch.setattr(nccl, "nccl_version", lambda device: device.version)
    monkeypatch.setattr(nccl, "gpu_name", lambda device: device.name)
    monkeypatch.setattr(nccl, "new_id", lambda: bytes(range(128)))
    monkeypatch.setattr(nccl, "Nccl", lambda device, *connection: SimpleNamespace(device=device, connection=connection))

    def decide(devices):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = run_ranks(len(devices), lambda rank: nccl.connected(rank, wait_until, devices[rank.rank]))
        return [result and result.nccl.connection for result in results], [str(entry.message) for entry in caught]

    return decide


def wait_until(is_done):
    while not is_done():
        pass


def test_gpus_of_their_own_are_connected(decided):
    connections, said = decided(devices((22707, "a"), (22707, "b"), (22707, "c")))
    assert connections == [(3, bytes(range(128)), rank) for rank in range(3)]
    assert said == []


@pytest.mark.parametrize(
    ("cards", "problem"),
    [
        ([(22707, "a"), (None, "b")], "CuPy finds no NCCL on rank 1 (pip install nvidia-nccl-cu12, or -cu13)"),
        ([(22707, "a"), (22707, "b"), (22707, "a")], "ranks 0 and 2 have the same GPU"),
        ([(22707, "a"), (22901, "b")], "ranks 0 and 1 have different versions of NCCL"),
    ],
)  # fmt: skip
def test_otherwise_arrays_go_through_the_host(decided, cards, problem):
    connections, said = decided(devices(*cards))
    assert connections == [None] * len(cards)
    assert said == [f"all_reduce: arrays of GPUs go through the host, because {problem}"]


def test_an_error_of_a_connection_is_raised(decided, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("cuda: NCCL must connect")

    monkeypatch.setattr(nccl, "Nccl", fails)
    with pytest.raises(RuntimeError, match="cuda: NCCL must connect"):
        decided(devices((22707, "a"), (22707, "b")))
