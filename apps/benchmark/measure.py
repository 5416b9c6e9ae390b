"""One process per library: the proof that all compute the same, and timing in turns."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import report
from .cases import ALONE, APART, CAPTURED, CASES, DIVIDED, MPI, MPI_PLAN, NETS, ON_GPU, RIVALS, WORKERS, Import, steps

__all__ = ["PINS", "TOLERANCE", "busy_process", "machine", "measure", "prove", "run_cases"]

ROOT = Path(__file__).resolve().parents[2]
WORKER = [sys.executable, "-m", "apps.benchmark.worker"]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BUSY = "import numpy as np; a = np.ones((1024, 1024), 'float32')\nwhile True: a @ a"  # a program beside the others
TOLERANCE = 1e-4  # relative, for float32


# ---- processes -------------------------------------------------------------------------------------------------------


class Worker:
    """A process that runs one library; `about` describes it, or is None if the library is not installed."""

    about: str | None

    def __init__(
        self, library: str, options: argparse.Namespace, environment: Mapping[str, str], threads: int = 1
    ) -> None:
        command = [*WORKER, library, options.clock, *["small"] * options.smoke]
        if library.startswith("needle-mpi"):
            command = [*shlex.split(options.mpi), "-n", str(threads), *command]
        elif library in DIVIDED:
            command += ["--ranks", str(threads)]
        # In its own session the worker does not receive our Ctrl-C; it ends when its stdin closes.
        self.process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> None:
        """Wait until the library is imported."""
        self.about = self._answer()

    def ask(self, case: str, row: str, first: int, count: int) -> Any:
        """The median seconds of `count` runs after `first` warm-up runs; if `count` is 0, the fingerprints of those."""
        return self._request([case, row, first, count])

    def peak(self) -> int:
        """The peak memory in bytes, of all processes of the library together."""
        return self._request("memory")

    def exchanges(self) -> float:
        """Which share of the time of the current row was spent in exchanges between processes."""
        return self._request("exchanges")

    def _request(self, request: Any) -> Any:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("benchmark: a worker process ended early; its message is above")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Importer:
    """The same interface for the case "import": each turn is one import in a fresh process."""

    about: str | None

    def __init__(
        self, library: str, options: argparse.Namespace, environment: Mapping[str, str], threads: int = 1
    ) -> None:
        code = f"from time import {options.clock} as clock; start = clock(); import {library}; print(clock() - start)"
        self.library, self.command, self.environment = library, [sys.executable, "-c", code], environment

    def start(self) -> None:
        """Import once, so that the files are in the system's cache."""
        process = self._run()
        self.about = None if f"No module named '{self.library}'" in process.stderr else f"import {self.library}"
        if process.returncode and self.about:
            raise SystemExit(f"benchmark: {self.about} fails:\n{process.stderr}")

    def ask(self, case: str, row: str, first: int, count: int) -> float:
        return float(self._run().stdout)

    def _run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command, env=self.environment, capture_output=True, text=True, check=False)

    def close(self) -> None:
        pass


def takes_part(name: str, case: str) -> bool:
    """Whether the library of this name in the tables runs the case."""
    ours = (ALONE, WORKERS, MPI, MPI_PLAN, APART, CAPTURED)
    return case in (NETS if name in ours else RIVALS.get(name, CASES))


def start(cases: Sequence[str], threads: int, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Start the libraries of some cases: their processes by name in the tables, and the names of missing libraries."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    pinned = os.environ | dict.fromkeys(THREADS, str(threads)) | {"PYTHONPATH": path}
    native = {name: value for name, value in pinned.items() if name not in PINS}
    ours = "needle" if threads == 1 else "needle, threads"
    libraries = {ours: ("needle", native)}
    if options.device == "cuda":
        libraries = {name: (library, native) for name, library in ON_GPU.items()}
    elif pinned != native:
        libraries = {f"{ours} (pinned)": ("needle", pinned), f"{ours} (native)": ("needle", native)}
    if options.captured and options.device == "cpu":
        libraries[CAPTURED] = ("needle-plan", native)
    if threads > 1:
        one = native | dict.fromkeys(THREADS, "1")
        libraries |= {WORKERS: ("needle-workers", native), ALONE: ("needle", one), APART: ("needle-apart", native)}
        if options.mpi:
            libraries[MPI] = ("needle-mpi", one)
        if options.mpi and options.captured:
            libraries[MPI_PLAN] = ("needle-mpi-plan", one)
    if options.device == "cpu":
        libraries |= {name: (name, native) for name in options.rivals if name not in DIVIDED or threads > 1}
    libraries = {name: library for name, library in libraries.items() if any(takes_part(name, case) for case in cases)}
    kind: Any = Importer if cases == ["import"] else Worker
    started = {name: kind(library, options, environment, threads) for name, (library, environment) in libraries.items()}
    for process in started.values():
        process.start()
    missing = [name for name, process in started.items() if process.about is None]
    for name in missing:
        started.pop(name).close()
    return started, missing


# ---- proof and turns -------------------------------------------------------------------------------------------------


def prove(processes: Mapping[str, Any], case: str, row: str, runs: int) -> None:
    """Exit unless all libraries compute the same."""
    results = {name: process.ask(case, row, runs, 0) for name, process in processes.items()}
    expected = results.get("torch") or list(results.values())[-1]
    for name, result in results.items():
        for (size, projection), (expected_size, expected_projection) in zip(result, expected, strict=True):
            error = math.hypot(size - expected_size, projection - expected_projection) / expected_size
            if not error <= TOLERANCE:
                raise SystemExit(f"benchmark: {case}, {row} of {name} is off by {error:.1e}: {result}, not {expected}")


def is_provable(name: str, case: str) -> bool:
    """Whether a library is to compute the same as torch: torch-ddp normalizes the items of each process apart."""
    if name == APART:
        return False
    return name != "torch-ddp" or all(
        layer.kind != "batch_norm" for layer, _ in steps(NETS[case].layers, NETS[case].shape)
    )


def measure(
    processes: Mapping[str, Any], case: str, row: str, rounds: int, turn: float, least: int
) -> dict[str, list[float]]:
    """Time one row: name -> seconds, one per round, each the median of a turn of about `turn` seconds."""
    slowest = max(process.ask(case, row, 1, least) for process in processes.values())
    count = max(least, round(turn / slowest))
    times: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            times[name].append(process.ask(case, row, 1 + count // 3, count))
    return times


def run_cases(cases: Sequence[str], threads: int, options: argparse.Namespace, run: dict[str, Any]) -> None:
    """Prove and time cases with the same processes, and enter the results into `run`."""
    started, missing = start(cases, threads, options)
    run["missing"] = sorted({*run["missing"], *missing})
    try:
        for case, row, work in ((name, *entry) for name in cases for entry in CASES[name].items()):
            print(f"threads {threads}, {case}: {row}", file=sys.stderr, flush=True)
            work = work.small() if options.smoke else work
            processes = {name: process for name, process in started.items() if takes_part(name, case)}
            if not isinstance(work, Import):
                equal = {name: process for name, process in processes.items() if is_provable(name, case)}
                prove(equal, case, row, work.runs)
            times = measure(processes, case, row, *options.effort)
            seconds = {name: [time / work.per for time in turns] for name, turns in times.items()}
            entry = {"case": case, "row": row, "products": work.products, "seconds": seconds}
            if WORKERS in processes:
                divided = [name for name in (WORKERS, MPI, MPI_PLAN) if name in processes]
                entry["exchanges"] = {name: processes[name].exchanges() for name in divided}
            run["rows"].append(entry | {"ratios": report.ratios(seconds)})
            if case in NETS:
                run["memory"][case] = {name: process.peak() for name, process in processes.items() if name != ALONE}
        run["rivals"] |= {name: process.about for name, process in started.items() if cases != ["import"]}
    finally:
        for process in started.values():
            process.close()


@contextmanager
def busy_process(threads: int = 1) -> Iterator[None]:
    """Let another process multiply matrices on so many threads until the block ends."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    process = subprocess.Popen([sys.executable, "-c", BUSY], env=environment, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def machine() -> str:
    """The CPU, the number of cores that this process may use, the system, Python, and what pins OpenBLAS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
        cpu = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        cpu = platform.processor() or platform.machine()
    pins = "".join(f", {name}={os.environ[name]}" for name in PINS if name in os.environ)
    return f"{cpu}, cores: {cores}, {platform.system()}, Python {platform.python_version()}{pins}"
