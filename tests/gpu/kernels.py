"""CUDA C on the CPU: the source that CuPy compiles for a GPU, compiled by g++ and launched on NumPy arrays.

`Module(text).get_function(name)(grid, block, arguments)` is CuPy's `RawModule`. Within `running(checked=True)` each
load and store of a kernel is looked at: bounds, alignment, memory that nothing wrote, races between barriers, and how
well the lanes of a warp share memory traffic. The host's part is in `shim/`.

Compiled kernels are kept in the folder that NEEDLE_KERNEL_CACHE names, by default build/kernels; `pytest` processes
may share it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).with_name("shim")
# Every product and sum is rounded; an fma is one only where the source says so.
OPTIONS = ["-O1", "-std=c++17", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing", f"-I{SHIM}"]
CHECKED = ["-fsanitize=thread", "-g1"]  # calls our functions before each access; libtsan is not linked
UNWRITTEN = 0x7FC0DEAD  # one of the NaNs: memory that nothing wrote, as in shim/checks.cpp
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(")
ALIGNMENT = 256  # bytes: a GPU's allocations begin at such multiples
MOST_ARGUMENTS = 4 << 10  # bytes, of every GPU; NVRTC refuses kernels with too much shared memory


class KernelError(RuntimeError):
    """What a kernel did that it must not do, or how it must not be launched."""


def missing() -> str | None:
    """Why kernels cannot be compiled here; None if they can."""
    return None if shutil.which("g++") else "g++ is not installed: nothing compiles CUDA C for the CPU"


# ---- how kernels run -------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """An access in the code of a kernel, and what all warps together asked for there."""

    requests: int
    lanes: int
    sectors: int
    bytes: int
    passes: int  # over the banks of shared memory
    shared: bool
    write: bool


@dataclass
class Run:
    """How kernels run: with checks or without, and in which order (0 forward, 1 backward, else a seed)."""

    checked: bool = False
    order: int = 0
    sites: dict[str, list[Site]] = field(default_factory=dict)  # kernel -> its accesses, where they are measured
    measure: bool = False

    def used(self, kernel: str, *, write: bool) -> float:
        """The used part of the sectors of global memory that a kernel read or wrote, bytes / (32 · sectors)."""
        sites = [site for site in self.sites[kernel] if site.write == write and not site.shared]
        return sum(site.bytes for site in sites) / (32 * sum(site.sectors for site in sites))

    def passes(self, kernel: str) -> float:
        """The passes over the banks of shared memory for a request of 4 bytes a lane; 1 is without conflicts."""
        sites = [site for site in self.sites[kernel] if site.shared]
        return sum(site.passes for site in sites) / sum(-(-site.bytes // 128) for site in sites)

    def assert_streams(self, *kernels: str, least: float = 0.95) -> None:
        """Fail unless these kernels used so much of the sectors that they read, and of those that they wrote."""
        for kernel in kernels:
            for write in (False, True):
                part = self.used(kernel, write=write)
                assert part >= least, f"{kernel} {'writes' if write else 'reads'} {part:.0%} of its sectors"


_run = Run()
_lock = threading.RLock()


@contextmanager
def running(checked: bool = False, order: int = 0, measure: bool = False) -> Iterator[Run]:
    """Run kernels with checks, or in another order of blocks and threads; `measure` counts sectors (checked only)."""
    global _run
    before, _run = _run, Run(checked, order, measure=measure)
    try:
        yield _run
    finally:
        _run = before


# ---- memory ----------------------------------------------------------------------------------------------------------

_allocations: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by address


class Memory(np.ndarray[Any, Any]):
    """The bytes of one allocation, which owns them: else NumPy would give its views another base."""

    first: int  # address
    end: int


def reserve(size: int) -> Memory:
    """So many bytes; `on_gpu` has others in its place."""
    return Memory(size, np.uint8)


def allocate(shape: Any, dtype: Any = "float32") -> np.ndarray[Any, Any]:
    """Memory aligned as a GPU's, of which checked kernels know that nothing wrote it."""
    dtype = np.dtype(dtype)
    shape = (int(shape),) if np.ndim(shape) == 0 else tuple(map(int, shape))
    size = max(1, -(-int(np.prod(shape, dtype="int64")) * dtype.itemsize // 4)) * 4
    memory = reserve(size + ALIGNMENT)
    start = -memory.ctypes.data % ALIGNMENT
    memory.first, memory.end = memory.ctypes.data + start, memory.ctypes.data + start + size
    memory[start : start + size].view(np.uint32)[...] = UNWRITTEN
    _allocations[memory.first] = memory
    return np.ndarray(shape, dtype, memory, start)


def _allocation(address: int) -> tuple[int, int] | None:
    """The first and the last address of the living allocation that holds an address."""
    for memory in list(_allocations.values()):
        if memory.first <= address < memory.end:
            return memory.first, memory.end
    return None


# ---- compiling -------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    return Path(os.environ.get("NEEDLE_KERNEL_CACHE") or ROOT / "build" / "kernels")


def _key(*parts: str) -> str:
    ours = "".join(path.read_text("utf-8") for path in (Path(__file__), *sorted(SHIM.iterdir())))
    return hashlib.sha256("\0".join([ours, *parts]).encode()).hexdigest()[:20]


def made(name: str, make: Any) -> Path:
    """The file or folder of that name in the cache; `make(target)` makes it, in one process at a time."""
    target = cache_folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                    make(new := Path(folder) / target.name)
                    os.replace(new, target)
    return target


def run_compiler(*arguments: Any) -> None:
    """Call g++. Raises KernelError with what it says."""
    process = subprocess.run(["g++", *map(str, arguments)], capture_output=True, text=True, check=False)
    if process.returncode:
        raise KernelError(f"g++ says: {process.stderr[:4000]}")


def runtime_library() -> Path:
    """The library of the scheduler and the checks."""
    sources = [SHIM / "cpu.cpp", SHIM / "checks.cpp"]
    return made(
        f"libcpu-{_key()}.so",
        lambda target: run_compiler(*OPTIONS, "-shared", *sources, "-o", target, "-ldl", f"-Wl,-soname,{target.name}"),
    )


def _prelude(options: Sequence[str]) -> Path:
    """The folder of the precompiled header for these options."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "cpu.h").write_text((SHIM / "cpu.h").read_text("utf-8"), "utf-8")
        run_compiler(*options, "-x", "c++-header", folder / "cpu.h", "-o", folder / "cpu.h.gch")

    return made(f"prelude-{_key(*options)}", make)


def build(text: str, checked: bool, level: str = OPTIONS[0]) -> Path:
    """The library of the kernels of a source; `level`, of optimization: -O0 compiles in two thirds of the time."""
    options = [level, *OPTIONS[1:], *(CHECKED if checked else [])]
    names = "".join(f"CPU_KERNEL({name})\n" for name in KERNEL.findall(text))
    unit = f'#include "cpu_mma.h"\n#line 1 "kernels.cu"\n{text}\n{names}'

    def make(target: Path) -> None:
        source = target.with_suffix(".cpp")
        source.write_text(unit, "utf-8")
        runtime, prelude, compiled = runtime_library(), _prelude(options), target.with_suffix(".o")
        run_compiler(*options, "-include", prelude / "cpu.h", "-c", source, "-o", compiled)
        # Linked without the options: they would add libtsan.
        run_compiler("-shared", compiled, runtime, f"-Wl,-rpath,{runtime.parent.resolve()}", "-o", target)

    return made(f"{_key(unit, *options)}.so", make)


# ---- launches --------------------------------------------------------------------------------------------------------


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]

    @classmethod
    def of(cls, size: Sequence[int]) -> Dim3:
        if not isinstance(size, tuple) or len(size) > 3:
            raise KernelError(f"grid and block must be tuples of at most three sizes, but got {size!r}")
        return cls(*(*size, 1, 1, 1)[:3])


@cache
def _library(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


@cache
def _checks() -> ctypes.CDLL:
    runtime = _library(runtime_library())
    runtime.cpu_error.restype = ctypes.c_char_p
    runtime.cpu_allow.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
    return runtime


class Module:
    """The kernels of a source, compiled when they are first launched."""

    def __init__(self, text: str) -> None:
        self.text, self.names, self._level = text, set(KERNEL.findall(text)), OPTIONS[0]
        self._libraries: dict[tuple[str, bool], ctypes.CDLL] = {}

    def library(self, checked: bool) -> ctypes.CDLL:
        key = self.text, checked
        if key not in self._libraries:
            self._libraries[key] = _library(build(*key, self._level))
        return self._libraries[key]

    @contextmanager
    def altered(self, old: str, new: str) -> Iterator[None]:
        """Within the block the source has `new` for `old`, which it must hold once."""
        before, count = self.text, self.text.count(old)
        if count != 1:
            raise ValueError(f"the source must hold this text once, but does {count} times: {old!r}")
        self.text, self._level = before.replace(old, new), "-O0"
        try:
            yield
        finally:
            self.text, self._level = before, OPTIONS[0]

    def get_function(self, name: str) -> Any:
        """A function (grid, block, arguments) that launches the kernel of that name."""
        if name not in self.names:
            raise KernelError(f"{name}: the source has no such kernel, but {', '.join(sorted(self.names))}")
        return lambda grid, block, arguments: self.launch(name, grid, block, arguments)

    def launch(self, name: str, grid: Any, block: Any, arguments: Sequence[Any]) -> None:
        with _lock:
            library, runtime, run = self.library(_run.checked), _checks(), _run
            holders = _holders(name, arguments, _argument_sizes(library, name))
            pointers = (ctypes.c_void_p * len(holders))(*map(ctypes.addressof, holders))
            shared = (ctypes.c_void_p * 2)()
            library.cpu_shared_memory(shared)
            size = (shared[1] or 0) - (shared[0] or 0)  # of all kernels of the source
            runtime.cpu_clear_error()
            runtime.cpu_clear_checks()
            runtime.cpu_order(run.order)
            runtime.cpu_check(run.checked)
            runtime.cpu_measure(run.measure)
            if run.checked:
                for first, end, unit, label in _memory(arguments):
                    runtime.cpu_allow(first, end - first, unit, 0, label.encode())
                if size:
                    runtime.cpu_allow(shared[0], size, 4, 1, b"shared memory")
            with np.errstate(all="ignore"):
                getattr(library, f"{name}_cpu")(Dim3.of(grid), Dim3.of(block), ctypes.c_size_t(0), pointers)
            if (error := runtime.cpu_error()) is not None:
                raise KernelError(error.decode())
            if run.measure:
                run.sites.setdefault(name, []).extend(_sites(runtime))


def _argument_sizes(library: ctypes.CDLL, name: str) -> list[int]:
    """The bytes that each parameter of a kernel takes."""
    sizes_of = getattr(library, f"{name}_sizes_of")
    sizes_of.restype = ctypes.POINTER(ctypes.c_size_t)
    sizes: list[int] = []
    for size in sizes_of():
        if not size:
            break
        sizes.append(size)
    return sizes


def _holders(name: str, arguments: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """The arguments as bytes; each must be an array, or a scalar of NumPy of the parameter's size."""
    if len(arguments) != len(sizes):
        raise KernelError(f"{name}: {len(sizes)} arguments are needed, but got {len(arguments)}")
    if sum(sizes) > MOST_ARGUMENTS:
        raise KernelError(f"{name}: arguments take {sum(sizes)} bytes, more than {MOST_ARGUMENTS}")
    holders = []
    for number, (value, size) in enumerate(zip(arguments, sizes, strict=True)):
        if isinstance(value, np.ndarray):
            data = value.ctypes.data.to_bytes(8, "little")
        elif isinstance(value, np.generic):
            data = value.tobytes()
        else:
            raise KernelError(f"{name}: argument {number} must be an array or a scalar of NumPy, but got {value!r}")
        if len(data) != size:
            raise KernelError(f"{name}: argument {number} takes {size} bytes, but {value.dtype} has {len(data)}")
        holders.append(ctypes.create_string_buffer(data, len(data)))
    return holders


def _memory(arguments: Sequence[Any]) -> list[tuple[int, int, int, str]]:
    """(first address, end, unit in bytes, name) of the memory that a kernel with these arguments may touch.

    That of its arrays; and where a structure holds the address of an array, from there to the end of its allocation.
    """
    ranges = []
    for number, value in enumerate(arguments):
        if isinstance(value, np.ndarray) and value.size:
            first, end = np.lib.array_utils.byte_bounds(value)
            ranges.append((first, end, min(value.itemsize, 4), f"argument {number} {value.dtype}{value.shape}"))
        elif isinstance(value, np.void):
            data = value.tobytes()
            for place in range(0, len(data) - 7, 8):
                first = int.from_bytes(data[place : place + 8], "little")
                if bounds := _allocation(first):
                    ranges.append((first, bounds[1], 4, f"argument {number}, pointer at {place}"))
    merged: list[tuple[int, int, int, str]] = []
    for first, end, unit, label in sorted(ranges):
        if merged and first < merged[-1][1]:  # of one allocation: views, or one array twice
            before = merged.pop()
            label = before[3] if label in before[3] else f"{before[3]} = {label}"
            first, end, unit = before[0], max(before[1], end), min(before[2], unit)
        merged.append((first, end, unit, label))
    return merged


def _sites(runtime: ctypes.CDLL) -> Iterator[Site]:
    figures, number = (ctypes.c_long * 7)(), 0
    while runtime.cpu_site(number, figures):
        *counts, shared, write = figures
        yield Site(*counts, bool(shared), bool(write))
        number += 1
