"""The adapters of PyTorch for a GPU, with torch.cuda played on the CPU: they run, and compute steps of the CPU."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import pytest

from apps.benchmark import cases, worker
from apps.benchmark.libraries import adapter_of

torch = pytest.importorskip("torch")


class Played:
    """What torch.cuda is asked for. A graph does its step when it is captured and again in each replay."""

    def __init__(self, monkeypatch):
        self.calls = []
        stream = type("Stream", (), {"wait_stream": lambda self, other: None})
        for name, value in {
            "is_available": lambda: True,
            "get_device_name": lambda: "a GPU",
            "synchronize": lambda: None,
            "Stream": stream,
            "current_stream": stream,
            "stream": lambda stream: nullcontext(),
            "CUDAGraph": lambda: self,
            "graph": lambda graph: nullcontext(),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "set_default_device", lambda device: None)

    def replay(self):
        self.calls.append("replay")


@pytest.fixture
def played(monkeypatch):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends], torch.backends.cudnn.benchmark
    yield Played(monkeypatch)
    for backend, allowed in zip(backends, before[0], strict=True):
        backend.allow_tf32 = allowed
    torch.backends.cudnn.benchmark = before[1]
    sys.modules.pop("apps.benchmark.libraries.torch_cuda", None)


@pytest.mark.parametrize("case", ["lenet", "autoencoder", "vgg"])
@pytest.mark.parametrize("name", ["torch-cuda", "torch-graph"])
def test_a_training_step_is_that_on_the_cpu(name, case, played):
    work = next(work for work in cases.CASES[case].values() if isinstance(work, cases.Training)).small()
    found = []
    for library in ("torch", name):
        lib = adapter_of(library)()
        run = worker.training(lib, work)
        found.append([worker.fingerprint(lib, run()) for _ in range(5)])
        assert worker.seconds(lib, run, lambda: 0.0) == 0
        assert "torch" in lib.about()
    np.testing.assert_allclose(found[1][:4], found[0][:4], rtol=1e-4)  # later replays do nothing here
    assert len(played.calls) == (name == "torch-graph") * (5 + lib.burst - 3)
