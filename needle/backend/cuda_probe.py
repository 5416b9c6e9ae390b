"""Find out whether CuPy has a GPU to run on, within a second and without importing CuPy."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from functools import cache
from importlib import util

from needle import tuning

__all__ = ["EITHER", "OLDEST", "cuda_problem", "driver_version", "wheels"]

CUDA_MAJORS = (13, 12)  # versions of CUDA with wheels of CuPy, newest first
OLDEST = 14  # major version of CuPy that needle supports
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_MEANWHILE = "meanwhile use device=ndl.cpu()"


def install(major: int) -> str:
    """The command that installs CuPy for that version of CUDA."""
    return f"`pip install 'cupy-cuda{major}x[ctk]>={OLDEST}'`"


EITHER = " or ".join(f"{install(major)} (CUDA {major})" for major in reversed(CUDA_MAJORS))


def wheels() -> Iterator[tuple[str, str]]:
    """The installed distributions of CuPy: pairs (name, version)."""
    from importlib import metadata  # takes as long to import as all of needle

    for name in (*(f"cupy-cuda{major}x" for major in CUDA_MAJORS), "cupy"):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def cuda_problem(index: int = 0, patience: float | None = tuning.DRIVER_PATIENCE) -> str | None:
    """Why GPU `index` cannot be used, and how to fix it; None if nothing is known to be wrong.

    A thread asks the driver, once per process; this call waits at most `patience` seconds (None: until it answers).
    The question initializes CUDA in this process, so processes forked later cannot use the GPU.
    """
    return _cupy_problem() or _probe().problem(index, patience)


@cache
def _cupy_problem() -> str | None:
    """Why CuPy cannot be used, as far as can be told without importing it."""
    try:
        spec = util.find_spec("cupy")
        installed = spec is not None and spec.origin is not None  # a mere folder named cupy has no origin
    except ValueError:  # someone put the module into sys.modules by hand
        installed = True
    if not installed:
        return f"CuPy must be installed, by {EITHER}, but got no module cupy"
    for name, version in wheels():
        if int(version.partition(".")[0]) < OLDEST:
            return f"CuPy must be {OLDEST} or newer; install it by {EITHER}, but got {name} {version}"
    return None


class _Probe:
    """A thread that asks the driver for its GPUs, and what it answered."""

    def __init__(self) -> None:
        self._problem: str | None = None
        self._count: int | None = None  # number of GPUs; None until the driver answers
        self._thread = threading.Thread(target=self._ask, name="needle-cuda", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._problem, self._count = _ask_driver()
        except Exception as error:  # the library is something other than a driver
            self._problem = f"the NVIDIA driver must be intact; reinstall it, but got {type(error).__name__}: {error}"

    def problem(self, index: int, patience: float | None) -> str | None:
        """Why GPU `index` cannot be used; None if it can, or if the driver has not answered yet."""
        self._thread.join(patience)
        if self._problem is None and self._count is not None and index >= self._count:
            return f"GPU {index} must exist; see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but got {self._count} in all"
        return self._problem


@cache
def _probe() -> _Probe:
    return _Probe()


def driver_version() -> str:
    """The driver's own description of itself; this does not initialize it."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"not installed ({_LIBRARY} cannot be loaded)"
    return "for CUDA {}.{}".format(*_newest_cuda(driver))


def _newest_cuda(driver: ctypes.CDLL) -> tuple[int, int]:
    """The newest version of CUDA that the driver supports: (major, minor)."""
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _ask_driver() -> tuple[str | None, int]:
    """Why the driver refuses every GPU (None: it does not), and the number of GPUs."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        return f"an NVIDIA driver must be installed ({_MEANWHILE}), but got no {_LIBRARY}: {error}", 0
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_DEVICE or (status == 0 and not count.value):
        return f"a GPU must exist ({_MEANWHILE}); see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but got 0 devices", 0
    if status:
        return f"the NVIDIA driver must work ({_MEANWHILE}); update it or restart, but got CUDA error {status}", 0
    major, _ = _newest_cuda(driver)
    for name, _ in wheels():
        for built in CUDA_MAJORS:
            if name == f"cupy-cuda{built}x" and built > major:
                return (
                    f"CuPy must fit the driver, which supports CUDA {major}: `pip uninstall {name}`, then "
                    f"{install(major)}, but got a build for CUDA {built}"
                ), 0
    return None, count.value
