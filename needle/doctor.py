"""`python -m needle.doctor`: what needle sees of this machine, and what to do next."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from needle.backend import cuda
from needle.backend.cuda_probe import driver_version, wheels

GIB = 2**30
FAILED = "failed:"
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def findings() -> Iterator[tuple[str, str]]:
    """Pairs (what, what there is of it), first the host's, then the GPU's, and at last what to do next."""
    needle = sys.modules["needle"]
    yield "needle", f"{needle.__version__} in {os.path.dirname(__file__)}"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}, {_cores()} of {os.cpu_count()} cores for this process"
    yield "NumPy", np.__version__
    advice = []
    yield from _told("BLAS", _blas)
    for name in PINS:
        if name in os.environ:
            yield "variable", f"{name}={os.environ[name]}"
    if "OPENBLAS_CORETYPE" in os.environ:
        advice.append("unset OPENBLAS_CORETYPE, so that OpenBLAS takes the kernel that is fastest on this CPU")
    installed = [f"{version} ({name})" for name, version in wheels()]
    yield "CuPy", ", ".join(installed) or "not installed"
    if len(installed) > 1:
        advice.append("uninstall all wheels of CuPy but one: they overwrite each other's files")
    yield from _told("driver", lambda: [driver_version()])
    if cuda().enabled():
        seen = [*_told("GPU", lambda: _gpus(cuda().xp)), *_told("GPU", lambda: _work(cuda().xp))]
        yield from seen
        failed = any(line.startswith(FAILED) for _, line in seen)
        advice.append(
            "mend what the lines on the GPU say; until then device=ndl.cpu() is there"
            if failed
            else "train on the GPU with device=ndl.cuda(), or `apps/train.py --device cuda`"
        )
    else:
        advice.append(f"for a GPU: {cuda().problem()}")
    for line in advice:
        yield "next", line


def _told(what: str, ask: Callable[[], Iterable[str]]) -> list[tuple[str, str]]:
    """What `ask` gives as findings; where it fails, the reason is the finding."""
    try:
        return [(what, line) for line in ask()]
    except Exception as error:  # whatever is wrong is what this report is for
        return [(what, f"{FAILED} {type(error).__name__}: {error}")]


def _cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _blas() -> Iterator[str]:
    """The libraries that multiply NumPy's matrices, with their kernels and threads where they tell."""
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in libraries:
        kernel = library.get("architecture", "unknown")
        yield f"{library['internal_api']} {library['version']}, kernel {kernel}, threads {library['num_threads']}"
    if not libraries:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        yield f"{built['name']} {built['version']}, which does not tell its threads: needle works on one"


def _gpus(cupy: Any) -> Iterator[str]:
    """Each GPU's name and memory."""
    runtime = cupy.cuda.runtime
    for number in range(runtime.getDeviceCount()):
        with cupy.cuda.Device(number):
            free, total = runtime.memGetInfo()
        name = runtime.getDeviceProperties(number)["name"].decode()
        yield f"{number}: {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def _work(cupy: Any) -> Iterator[str]:
    """Whether a GPU does what needle asks of it: a kernel compiled for it, a product, random numbers."""
    ones = cupy.ones((2, 2), "float32")
    total = float(((ones + cupy.exp(ones * 0)) @ ones).sum() + cupy.random.random_sample((1,)).sum() * 0)
    yield f"computes 8 + 8 = {total:g} with its compiler, its matrix products and its random numbers"


def main() -> None:
    """Print the findings."""
    for what, found in findings():
        print(f"{what:9}{found}")


if __name__ == "__main__":
    main()
