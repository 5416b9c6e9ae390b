"""Every CUDA source compiles, by NVRTC with CuPy's options, and keeps its variables in registers."""

from __future__ import annotations

from pathlib import Path

import pytest

import needle.kernels.gpu
from needle.kernels.gpu.source import Source
from tests.gpu import nvrtc

FOLDER = Path(needle.kernels.gpu.__file__).parent
SOURCES = sorted(path.name for path in FOLDER.glob("*.cu") if "__global__" in path.read_text("utf-8"))
REGISTERS = 255  # of a thread
A_FEW_WORDS = 32  # bytes, kept in memory around the call of a routine, such as that of a division of float64


@pytest.fixture
def compile_source():
    if nvrtc.library() is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed: nothing compiles CUDA C for GPUs")
    return nvrtc.compile_source


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_compiles_without_spills(name, architecture, compile_source):
    kernels = compile_source(Source(name).text, architecture)
    assert kernels
    for kernel in kernels:
        assert kernel.spilled <= A_FEW_WORDS, kernel
        assert kernel.registers <= REGISTERS, kernel


def test_errors_and_spills_are_found(compile_source):
    with pytest.raises(ValueError, match='"y" is undefined'):
        compile_source('extern "C" __global__ void f(float* x) { x[threadIdx.x] = y; }', "sm_90")
    spilling = """extern "C" __global__ void __launch_bounds__(1024, 2) f(float* x) {
      float v[64];
      for (int i = 0; i < 64; i++) v[i] = x[i * 1024 + threadIdx.x];
      __syncthreads();
      for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = v[63 - i] * v[i];
    }"""
    (kernel,) = compile_source(spilling, "sm_90")
    assert kernel.name == "f"
    assert kernel.spilled > 0
