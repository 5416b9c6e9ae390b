"""`python -m needle.doctor`: what needle sees of this machine, and what to do next."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np

from needle.backend_ndarray import cuda
from needle.backend_ndarray.driver import driver_version

GIB = 2**30
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def findings() -> Iterator[tuple[str, str]]:
    """Pairs (what, what there is of it), first the host's, then the GPU's, and at last what to do next."""
    needle = sys.modules["needle"]
    yield "needle", f"{needle.__version__} in {os.path.dirname(__file__)}"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}, {_cores()} of {os.cpu_count()} cores for this process"
    yield "NumPy", np.__version__
    advice = []
    for line in _blas():
        yield "BLAS", line
    for name in PINS:
        if name in os.environ:
            yield "variable", f"{name}={os.environ[name]}"
    if "OPENBLAS_CORETYPE" in os.environ:
        advice.append("unset OPENBLAS_CORETYPE, so that OpenBLAS takes the kernel that is fastest on this CPU")
    yield "CuPy", _version("cupy-cuda13x") or _version("cupy-cuda12x") or _version("cupy") or "not installed"
    yield "driver", driver_version()
    if cuda().enabled():
        try:
            for line in _gpus(cuda().xp):
                yield "GPU", line
            advice.append("train on the GPU with device=ndl.cuda(), or `apps/train.py --device cuda`")
        except Exception as error:  # whatever is wrong there is what this report is for
            yield "GPU", f"{type(error).__name__}: {error}"
            advice.append("mend what the line above says; until then device=ndl.cpu() is there")
    else:
        advice.append(f"for a GPU: {cuda().problem()}")
    for line in advice:
        yield "next", line


def _cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _blas() -> Iterator[str]:
    """The libraries that multiply NumPy's matrices: their kernel and threads where threadpoolctl can ask them."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        yield f"{built['name']} {built['version']}; `pip install threadpoolctl` shows its kernel and threads"
        return
    for library in threadpool_info():
        if library["user_api"] == "blas":
            kernel = library.get("architecture", "unknown")
            yield f"{library['internal_api']} {library['version']}, kernel {kernel}, threads {library['num_threads']}"


def _version(distribution: str) -> str | None:
    try:
        return f"{metadata.version(distribution)} ({distribution})"
    except metadata.PackageNotFoundError:
        return None


def _gpus(cupy: Any) -> Iterator[str]:
    """Each GPU's name and memory."""
    runtime = cupy.cuda.runtime
    for number in range(runtime.getDeviceCount()):
        with cupy.cuda.Device(number):
            free, total = runtime.memGetInfo()
        name = runtime.getDeviceProperties(number)["name"].decode()
        yield f"{number}: {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def main() -> None:
    """Print the findings."""
    for what, found in findings():
        print(f"{what:9}{found}")


if __name__ == "__main__":
    main()
