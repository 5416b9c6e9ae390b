"""Whether there is a GPU for CuPy, found out without importing CuPy and within a second."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from functools import cache
from importlib import util

CUDA_MAJORS = (13, 12)  # of the wheels of CuPy, the newest first
OLDEST = 14  # of the versions of CuPy
PATIENCE = 0.8  # seconds; a driver that takes longer to answer is at work
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def install(major: int) -> str:
    """The command that installs needle with CuPy for that version of CUDA."""
    return f"`pip install 'needle-dl[cuda{major}x]'`"


EITHER = " or ".join(f"{install(major)} (CUDA {major})" for major in reversed(CUDA_MAJORS))


def wheels() -> Iterator[tuple[str, str]]:
    """The distributions of CuPy that are installed: pairs (name, version)."""
    from importlib import metadata  # whose import takes as long as that of all of needle

    for name in (*(f"cupy-cuda{major}x" for major in CUDA_MAJORS), "cupy"):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def cuda_problem(patience: float | None = PATIENCE) -> str | None:
    """Why the GPU cannot be used, with what mends it; None where nothing speaks against it.

    The driver is asked once, by a thread, for which this waits at most `patience` seconds (None: until it has
    answered). Asking starts CUDA in this process: what is forked off later cannot use it.
    """
    return _cupy_problem() or _question().answer(patience)


@cache
def _cupy_problem() -> str | None:
    """What speaks against using CuPy, without importing it."""
    try:
        found = util.find_spec("cupy")
        installed = found is not None and found.origin is not None  # a mere folder of that name has no origin
    except ValueError:  # a module that was put into sys.modules by hand
        installed = True
    if not installed:
        return f"CuPy must be installed, by {EITHER}, but got no module cupy"
    for name, version in wheels():
        if int(version.partition(".")[0]) < OLDEST:
            return f"CuPy must be {OLDEST} or newer; install it by {EITHER}, but got {name} {version}"
    return None


class _Question:
    """A question to the driver, asked in a thread."""

    def __init__(self) -> None:
        self._answer: str | None = None
        self._thread = threading.Thread(target=self._ask, name="needle-cuda", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._answer = _driver_problem()
        except Exception as error:  # a library that is no driver
            self._answer = f"the NVIDIA driver must be whole; install it again, but got {type(error).__name__}: {error}"

    def answer(self, patience: float | None) -> str | None:
        """What the driver has said, or None while it is at work."""
        self._thread.join(patience)
        return self._answer


@cache
def _question() -> _Question:
    return _Question()


def driver_version() -> str:
    """What the driver says of itself; it is not initialised for that."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"not installed ({_LIBRARY} cannot be loaded)"
    return "for CUDA {}.{}".format(*_serves(driver))


def _serves(driver: ctypes.CDLL) -> tuple[int, int]:
    """The newest version of CUDA that the driver serves."""
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _driver_problem() -> str | None:
    """What the driver says against using the GPU."""
    until_then = "until then device=ndl.cpu() is there"
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        return f"an NVIDIA driver must be installed ({until_then}), but got no {_LIBRARY}: {error}"
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_DEVICE or (status == 0 and not count.value):
        return f"a GPU must be there ({until_then}); see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but got 0 devices"
    if status:
        return f"the NVIDIA driver must work ({until_then}); update it or restart, but got CUDA's error {status}"
    major, _ = _serves(driver)
    for name, _ in wheels():
        for built in CUDA_MAJORS:
            if name == f"cupy-cuda{built}x" and built > major:
                return (
                    f"CuPy must be one for the driver, which serves CUDA {major}: `pip uninstall {name}`, then "
                    f"{install(major)}, but got one for CUDA {built}"
                )
    return None
