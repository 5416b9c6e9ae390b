"""Whether there is a GPU for CuPy, found out without importing CuPy and within a second."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from importlib import metadata, util

CUDA_MAJORS = (13, 12)  # of the wheels of CuPy, the newest first
PATIENCE = 0.8  # seconds; a driver that takes longer to answer is at work
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def install(major: int) -> str:
    """The command that installs needle with CuPy for that version of CUDA."""
    return f"`pip install 'needle-dl[cuda{major}x]'`"


@cache
def cuda_problem() -> str | None:
    """Why the GPU cannot be used, with what mends it; None where there is one and CuPy is installed."""
    try:
        installed = util.find_spec("cupy") is not None
    except ValueError:  # a module that was put into sys.modules by hand
        installed = True
    if not installed:
        choices = " or ".join(f"{install(major)} (CUDA {major})" for major in reversed(CUDA_MAJORS))
        return f"CuPy must be installed, by {choices}, but got no module cupy"
    answers: list[str | None] = []
    asking = threading.Thread(target=lambda: answers.append(_driver_problem()), name="needle-cuda", daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answers[0] if answers else None


def driver_version() -> str:
    """What the driver says of itself; it is not initialised for that."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"not installed ({_LIBRARY} cannot be loaded)"
    return "for CUDA {}.{}".format(*_speaks(driver))


def _speaks(driver: ctypes.CDLL) -> tuple[int, int]:
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
    major, _ = _speaks(driver)
    for wheel in CUDA_MAJORS:
        if wheel > major and _has_wheel(wheel):
            return (
                f"CuPy must be one for the driver, which serves CUDA {major}: `pip uninstall cupy-cuda{wheel}x`, then "
                f"{install(major)}, but got one for CUDA {wheel}"
            )
    return None


def _has_wheel(major: int) -> bool:
    try:
        metadata.version(f"cupy-cuda{major}x")
    except metadata.PackageNotFoundError:
        return False
    return True
