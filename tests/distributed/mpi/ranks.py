"""Run a program of this folder by `mpiexec`, and get what each rank returns.

A program is a module with `main(communicator, *arguments)`: `run(size, "NAME", *arguments)` calls it in every rank.
`start` runs any command and leaves `join` to it. Everything has a time limit, and nothing survives it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MARK = "NEEDLE_MPI_RUN"  # the variable by which processes of a run are found
PATIENCE = 60  # seconds
LOADS = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"


@functools.cache
def launcher():
    """The beginning of a command that starts ranks, and the Python of its MPI: of `NEEDLE_MPIEXEC`, or this one's.

    Skips the test where there is none.
    """
    given = shlex.split(os.environ.get("NEEDLE_MPIEXEC", ""))
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpiexec = given[0] if given else shutil.which("mpiexec", path=beside)
    python = Path(mpiexec).parent / "python" if mpiexec else None
    if not given or not python.exists():
        python = sys.executable
    if mpiexec is None:
        pytest.skip("mpiexec is missing: no MPI on this machine")
    loads = subprocess.run([python, "-c", LOADS], capture_output=True, text=True, timeout=PATIENCE, check=False)
    if loads.returncode:
        pytest.skip(f"mpi4py is missing, or finds no MPI library: {loads.stderr.strip().splitlines()[-1]}")
    if ("Open MPI" in loads.stdout) != is_open_mpi(mpiexec):
        pytest.skip(f"{mpiexec} does not belong to mpi4py's MPI library: {loads.stdout.splitlines()[0]}")
    command = [mpiexec, *given[1:]]
    if is_open_mpi(mpiexec):
        command += ["--oversubscribe", *(["--allow-run-as-root"] if os.getuid() == 0 else [])]
    return command, str(python)


def is_open_mpi(mpiexec):
    """Whether that `mpiexec` is of Open MPI, which wants to be told more."""
    return "open-mpi.org" in version_of(mpiexec)  # version 4 calls itself OpenRTE


def waits_for_machines(mpiexec):
    """Whether that `mpiexec` waits where a machine cannot be reached, as those of Open MPI and of Intel MPI do."""
    return "HYDRA" not in version_of(mpiexec)


@functools.cache
def version_of(mpiexec):
    version = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    return version.stdout + version.stderr


class Started:
    """A command under `mpiexec`: its processes, until `end`, and what they print."""

    def __init__(self, size, command, environment=None, cwd=ROOT, starter=None):
        beginning, python = launcher()
        self.name = uuid.uuid4().hex
        # Open MPI cuts the lines of its ranks' output, and hydra mixes them, so each stream goes to a file.
        self.folder = tempfile.TemporaryDirectory(prefix="needle-mpi-")
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
        variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "", MARK: self.name}
        variables |= environment or {}
        words = [python if word == "python" else word for word in command]
        self.outputs = [open(Path(self.folder.name) / name, "w+") for name in ("output", "errors")]  # noqa: SIM115
        self.texts = []  # all that was printed, once the run has ended
        self.process = subprocess.Popen(
            [*(starter or beginning), "-n", str(size), *words],
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self.outputs[0],
            stderr=self.outputs[1],
            start_new_session=True,
        )

    def pids(self):
        """The processes of this run that still live, `mpiexec` first."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.name}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return sorted(found)

    def wait(self, timeout=PATIENCE):
        """The exit status of `mpiexec`. Raises TimeoutExpired, with what was printed as a note."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            error.add_note(f"output: {self.output}\nerrors: {self.errors}")
            raise

    @property
    def output(self):
        return self._text(0)

    @property
    def errors(self):
        return self._text(1)

    def _text(self, number):
        return self.texts[number] if self.texts else Path(self.outputs[number].name).read_text(errors="replace")

    def end(self):
        """Kill what remains; the processes that were left after `mpiexec` had ended."""
        was_running = self.process.poll() is None
        left = self.pids()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if was_running:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.texts = self.texts or [self.output, self.errors]
        for output in self.outputs:
            output.close()
        self.folder.cleanup()
        return [] if was_running else left

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()


def start(size, command, **options):
    """Start `mpiexec -n size command`, in which the word "python" stands for the Python of that MPI.

    `environment` adds variables, `cwd` is the folder, and `starter` replaces mpiexec and its options. Use it in a
    `with` block, which ends all of its processes.
    """
    return Started(size, command, **options)


def run(size, program, *arguments, timeout=PATIENCE, environment=None, limits=None, starter=None):
    """What `main(communicator, *arguments)` of the module `tests.distributed.mpi.PROGRAM` returns in each rank.

    `limits` are values of `needle.tuning`. Raises AssertionError with all that was printed if a rank fails.
    """
    with tempfile.TemporaryDirectory(prefix="needle-mpi-") as folder:
        (Path(folder) / "arguments").write_bytes(pickle.dumps((arguments, limits or {})))
        command = ["python", "-m", "tests.distributed.mpi.rank", program, folder]
        with start(size, command, environment=environment, starter=starter) as started:
            status = started.wait(timeout)
            results = [Path(folder) / f"{rank}.pickle" for rank in range(size)]
            if status or not all(path.exists() for path in results):
                raise AssertionError(f"mpiexec ended with {status}:\n{started.output}\n{started.errors}")
        return [pickle.loads(path.read_bytes()) for path in results]
