"""`python -m needle.doctor`: report what needle finds on this machine, and what to do next."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from needle.backend import Device, cuda
from needle.backend.cuda_probe import EITHER, driver_version, wheels

__all__ = ["findings", "main"]

GIB = 2**30
FAILED = "failed:"
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def findings() -> Iterator[tuple[str, str]]:
    """The report as pairs (subject, finding): the host, the GPUs, and last what to do next."""
    needle = sys.modules["needle"]
    yield "needle", f"{needle.__version__} in {os.path.dirname(__file__)}"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}, {_cores()} of {os.cpu_count()} cores for this process"
    yield "NumPy", np.__version__
    advice = []
    yield from _report("BLAS", _blas)
    for name in PINS:
        if name in os.environ:
            yield "variable", f"{name}={os.environ[name]}"
    if "OPENBLAS_CORETYPE" in os.environ:
        advice.append("unset OPENBLAS_CORETYPE, so that OpenBLAS picks its fastest kernel for this CPU")
    installed = [f"{version} ({name})" for name, version in wheels()]
    yield "CuPy", ", ".join(installed) or "not installed"
    if len(installed) > 1:
        names = " ".join(name for name, _ in wheels())
        advice.append(f"wheels of CuPy overwrite each other's files: `pip uninstall {names}`, then {EITHER}")
    yield from _report("driver", lambda: [driver_version()])
    problem = cuda().problem()
    if problem is None:
        inspections = (lambda: _gpus(cuda().xp), lambda: _try_gpu(cuda().xp), lambda: _try_kernel(cuda()))
        gpu = [line for inspect in inspections for line in _report("GPU", inspect)]
        yield from gpu
        advice.append(
            "fix what the GPU lines report; meanwhile use device=ndl.cpu()"
            if any(line.startswith(FAILED) for _, line in gpu)
            else "train on the GPU with device=ndl.cuda(), or in the repository: `python apps/train.py --device cuda`"
        )
    else:
        advice.append(f"for a GPU: {problem}")
    for line in advice:
        yield "next", line


def _report(subject: str, inspect: Callable[[], Iterable[str]]) -> list[tuple[str, str]]:
    """The lines of `inspect` as findings; if it fails, the error is the finding."""
    try:
        return [(subject, line) for line in inspect()]
    except Exception as error:  # finding out what is broken is the purpose of this report
        return [(subject, f"{FAILED} {type(error).__name__}: {error}")]


def _cores() -> int | None:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _blas() -> Iterator[str]:
    """The BLAS libraries of this process, with their kernels and threads if they report them."""
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in libraries:
        kernel = library.get("architecture", "unknown")
        yield f"{library['internal_api']} {library['version']}, kernel {kernel}, threads {library['num_threads']}"
    if not libraries:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        yield f"{built['name']} {built['version']}, which does not report its threads: needle uses one"


def _gpus(cupy: Any) -> Iterator[str]:
    """The name and the memory of each GPU."""
    runtime = cupy.cuda.runtime
    for number in range(runtime.getDeviceCount()):
        with cupy.cuda.Device(number):
            free, total = runtime.memGetInfo()
        name = runtime.getDeviceProperties(number)["name"].decode()
        yield f"{number}: {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def _try_gpu(cupy: Any) -> Iterator[str]:
    """Run on a GPU what needle needs there: a compiled kernel, a matrix product, random numbers."""
    ones = cupy.ones((2, 2), "float32")
    total = float(((ones + cupy.exp(ones * 0)) @ ones).sum() + cupy.random.random_sample((1,)).sum() * 0)
    yield f"computes 8 + 8 = {total:g}: its compiler, matrix products and random numbers work"


def _try_kernel(device: Device) -> Iterator[str]:
    """Compile and launch one of needle's own kernels, which turns a byte into a float."""
    from needle.kernels.gpu.batch import turn

    value = float(device.to_host(turn(device.filled((1, 1, 1, 1), 7, "uint8"))).item())
    yield f"computes 7 = {value:g} by a kernel of needle's own, compiled from its source"


def main() -> None:
    """Print the report; exit with status 2 if stdout is full, or closed by its reader (`| head`)."""
    try:
        for subject, finding in findings():
            print(f"{subject:9}{finding}", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        if not isinstance(error, BrokenPipeError):
            print(f"doctor: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
