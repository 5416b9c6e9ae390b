"""NVRTC, the compiler of CUDA C that CuPy uses, from the package nvidia-cuda-nvrtc; it needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What CuPy tells it for `RawModule(options=("--std=c++17",))`.
CUPY_OPTIONS = ["--std=c++17", "-ftz=true", "--device-as-default-execution-space"]


@dataclass
class Kernel:
    """What a kernel takes on a GPU: registers of a thread, bytes of shared memory, and bytes spilled to memory."""

    name: str
    registers: int
    shared: int
    spilled: int


@cache
def library() -> ctypes.CDLL | None:
    """NVRTC, or None if it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations or [] if spec else []
    found = [
        path for folder in folders for path in sorted(Path(folder).rglob("libnvrtc.so.*")) if "alt" not in path.name
    ]
    if not found:
        return None
    # It loads its builtins by name.
    for path in found[0].parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(found[0]))


def compile_source(text: str, architecture: str) -> list[Kernel]:
    """The kernels of a source for an architecture such as sm_90. Raises ValueError with the compiler's report."""
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}", *CUPY_OPTIONS, "--ptxas-options=-v"]
    names = (ctypes.c_char_p * len(options))(*map(str.encode, options))
    failed, size = nvrtc.nvrtcCompileProgram(program, len(options), names), ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    report = log.value.decode()
    if failed:
        raise ValueError(report)
    return [*_kernels(report)]


def _kernels(report: str):
    """The kernels that the assembler names, each with its figures."""
    for part in re.split(r"Compiling entry function '", report)[1:]:
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        yield Kernel(part.partition("'")[0], int(registers[1]), int(shared[1]) if shared else 0, spilled)
