"""Launchers take the place of kernels on GPUs, and sources are compiled once for a device."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from needle.backend import CudaDevice, cuda_device, kernel_providers
from needle.kernels import max_windows
from needle.kernels.gpu import LAUNCHERS
from needle.kernels.gpu.source import Source, generic, window_struct
from needle.ops.operand import make_window
from tests.gpu.shim_device import SHIM


def test_every_launcher_replaces_a_kernel():
    modules = [module for name, module in sys.modules.items() if name.startswith("needle.kernels")]
    for name in LAUNCHERS:
        kernels = {vars(module)[name] for module in modules if name in vars(module)}
        assert any(hasattr(kernel, "__wrapped__") for kernel in kernels), name
    assert generic(max_windows) is max_windows.__wrapped__


@pytest.fixture
def gpu(monkeypatch):
    """A CUDA device of its own, with a module that notes what it compiles in CuPy's place."""
    compiled = []
    fake = SimpleNamespace(
        __version__="14.0",
        ndarray=type("ndarray", (), {}),
        RawModule=lambda **options: compiled.append(options) or options,
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda_device, "cuda_problem", lambda *_, **__: None)
    device = CudaDevice()
    device.compiled = compiled
    return device


def test_a_gpu_gets_its_kernels_when_it_is_first_used(gpu):
    assert gpu.kernels == {}
    gpu.kernels["max_windows"] = own = lambda *_: "mine"
    assert gpu.xp.__version__ == "14.0"
    assert gpu.kernels["max_windows"] is own
    assert gpu.kernels["sum_windows"] is LAUNCHERS["sum_windows"]
    assert len(kernel_providers) == 1


def test_a_source_is_compiled_once(gpu):
    text = Source("pool.cu").text
    assert gpu.raw_module(text) is gpu.raw_module(text)
    assert gpu.compiled == [{"code": text, "options": ("--std=c++17",)}]
    assert "struct Window" in text
    assert "max_pool_4" in text


def test_the_structure_of_a_window():
    window = make_window("pool", 2, (2, 3), 1, (1, 2))
    struct = window_struct(window, (9, 8), (3, 2))
    assert struct is window_struct(window, (9, 8), (3, 2))
    assert struct.nbytes == 72
    assert struct["size"].tolist() == [1, 9, 8]
    assert struct["output"].tolist() == [1, 5, 3]
    assert struct["padding"].tolist() == [0, 1, 1]


def test_kernels_of_the_shim_are_those_of_a_gpu():
    assert SHIM.kernels is LAUNCHERS
