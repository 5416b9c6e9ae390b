"""The installed CuPy on the null device: CUDA played on host memory, each call counted."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import abc, import_module, machinery, util
from pathlib import Path
from typing import Any

from tests.gpu.null import compiler, hosted
from tests.gpu.null.build import LIBRARIES, NAMES, NCCL, RUNTIME, null_device

library: ctypes.CDLL | None = None


class _Rebuilt(abc.MetaPathFinder):
    """Finds the modules of CuPy that were rebuilt."""

    def __init__(self, folder: Path) -> None:
        self.paths = {
            name.replace("/", "."): next(folder.glob(f"{Path(name).name}.*.so"))
            for name in (RUNTIME, *(f"{LIBRARIES}/{name}" for name in NAMES))
        }

    def find_spec(self, name: str, path: Any, target: Any = None) -> machinery.ModuleSpec | None:
        return util.spec_from_file_location(name, self.paths[name]) if name in self.paths else None


def start(runs: bool = True) -> ctypes.CDLL:
    """Put CuPy on the null device, before anything imports CuPy. Not `runs`: launches are counted and do nothing."""
    global library
    if library is not None:
        return library
    if "cupy" in sys.modules:
        raise RuntimeError("the null device must start before CuPy is imported")
    folder = null_device()
    os.environ["CUPY_ACCELERATORS"] = ""  # those bring CUDA's runtime along in their own binaries
    library = ctypes.CDLL(str(folder / "libnull.so"))
    library.null_count.restype = ctypes.c_long
    library.null_entries.restype = ctypes.c_char_p
    library.null_idle(int(not runs))
    loaded = ctypes.CDLL

    class Mapped(loaded):  # type: ignore[misc,valid-type]
        """Gives the null device to who asks for the driver. NVRTC, which asks the system's loader, gets none."""

        def __init__(self, name: str | None, *args: Any, **options: Any) -> None:
            super().__init__(str(folder / "libnull.so") if name == "libcuda.so.1" else name, *args, **options)

    ctypes.CDLL = Mapped  # type: ignore[misc]
    for path in (*folder.glob("libnu*.so.*"), folder / NCCL):
        loaded(str(path))  # later found by its name, wherever the loader would look
    sys.meta_path.insert(0, _Rebuilt(folder))
    for name in NAMES:  # directly: by attribute, CuPy would first look for the libraries in the system
        import_module(f"cupy_backends.cuda.libs.{name}")
    import cupy

    compiler.replace(runs)
    hosted.replace(library)
    if runs:
        _hook(cupy)
    return library


def running() -> ctypes.CDLL:
    """The library of the null device, which must have started."""
    if library is None:
        raise RuntimeError("the null device must have started")
    return library


@contextmanager
def late() -> Iterator[None]:
    """Do no work before somebody waits for it, so that a missing wait is seen in the values."""
    running().null_late(1)
    try:
        yield
    finally:
        running().null_late(0)


def _hook(cupy: Any) -> None:
    """Poison memory whose content is undefined: what the pool hands out to this thread, and what it gets back."""

    class Poison(cupy.cuda.MemoryHook):  # type: ignore[misc]
        name = "Poison"

        def malloc_postprocess(self, device_id: int, size: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            _poison(cupy, mem_ptr, size)

        def free_postprocess(self, device_id: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            _poison(cupy, mem_ptr, mem_size, freed=True)

    hook = Poison()
    hook.__enter__()
    atexit.register(hook.__exit__)


def _poison(cupy: Any, address: int, size: int, freed: bool = False) -> None:
    library = running()
    stream = ctypes.c_void_p(cupy.cuda.get_current_stream().ptr)
    if not (freed and library.null_is_capturing(stream)):  # a graph would do it to whoever has that memory then
        library.null_poison(ctypes.c_void_p(address), ctypes.c_size_t(size), stream)
