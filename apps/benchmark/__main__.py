"""Time needle against PyTorch and others on the same work: networks, single ops, overhead, memory, growth.

    python -m apps.benchmark --threads 1 2 --write docs/performance.md     # everything, and the table of the docs
    python -m apps.benchmark --cases lenet conv1d --rivals torch,mygrad,dezero
    python -m apps.benchmark --captured --cases lenet       # beside eager steps, those of ndl.capture
    python -m apps.benchmark --threads 2 --mpi --rivals torch-ddp --cases vgg   # also 2 ranks of MPI (with --captured,
                                                                                # ranks whose steps are captured, too)
    python -m apps.benchmark --device cuda                  # training steps on a GPU: eager, captured, torch's graph

Each library runs in its own process (worker.py) with the number of threads in its environment; each case starts fresh
processes, unless sizes are tiny. Before a row is timed, all libraries must compute the same: five losses from the same
weights and batches, or the result of the op. Then they take turns, A B A B (measure.py). A turn is the median time of
several runs after some warm-up runs. The tables (report.py) show the median over the rounds; for a ratio, computed
within each round, the median and the range. On a busy machine elapsed time means little: with one thread, --cpu-time
counts processor time.

OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE tie NumPy's OpenBLAS to the kernels or the cache of another CPU. If one of them
is set, needle is timed both with it, "pinned", and without, "native"; its rivals run without.
"""

from __future__ import annotations

import sys

if not __package__:
    print("benchmark: it must run as a module, by python -m apps.benchmark", file=sys.stderr)
    raise SystemExit(2)

import argparse
import json
import math
import shlex
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import interruptible, user_errors
from . import report
from .cases import CASES, NETS, RIVALS
from .measure import busy_process, machine, run_cases


def main(arguments: Sequence[str] | None = None) -> str:
    """Run the benchmark; returns the text of its report."""
    options = parse(arguments)
    with user_errors("benchmark"):
        options.out.mkdir(parents=True, exist_ok=True)
        record = None if options.read is None else read(options.read)
    with interruptible(lambda: f"; the cases that are complete are in {options.out}"):
        if record is None:
            record = measured(options)
        save(record, options)
        text = report.text(record)
        print(text, end="", flush=True)
    return text


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record of a run, which is also saved after each group of cases."""
    record = {"machine": machine(), "clock": options.clock, "rounds": options.effort[0], "smoke": options.smoke}
    record["runs"] = []
    for threads in options.threads:
        for busy in (False, True) if options.busy else (False,):
            run: dict[str, Any] = {"threads": threads, "busy": busy}
            run |= {"rivals": {}, "missing": [], "rows": [], "memory": {}}
            record["runs"].append(run)
            with busy_process(threads) if busy else nullcontext():
                for cases in process_groups(options):
                    run_cases(cases, threads, options, run)
                    save(record, options)
    return record


def read(path: Path) -> dict[str, Any]:
    """The record of an earlier run."""
    try:
        record = json.loads(path.read_text("utf-8"))
        report.text(record)
    except OSError:
        raise
    except Exception as error:  # JSON of another program may fail anywhere in the report
        raise ValueError(f"--read must be a benchmark.json, but {path} is not: {error!r:.200}") from error
    return record


def process_groups(options: argparse.Namespace) -> list[list[str]]:
    """Groups of cases that share processes: one case each; with tiny sizes all cases but "import"."""
    if not options.smoke:
        return [[case] for case in options.cases]
    together = [case for case in options.cases if case != "import"]
    return [cases for cases in (together, ["import"]) if cases and cases[0] in options.cases]


def save(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the record and its report to --out, and the report into the marked place of --write."""
    text = report.text(record)
    with user_errors("benchmark"):
        (options.out / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        (options.out / "benchmark.md").write_text(text, "utf-8")
        if options.write is not None:
            options.write.write_text(report.fill(options.write.read_text("utf-8"), text), "utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m apps.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1],
        help="of BLAS and the rivals; tables for each number (default: 1)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: training steps alone, on GPU 0")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES) + " (default: all)")
    parser.add_argument("--rivals", default="torch", help="comma-separated, torch always: " + ", ".join(RIVALS))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each library (default: %(default)s)")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds per turn (default: %(default)s)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time, for a busy machine (one thread only)"
    )
    parser.add_argument(
        "--busy", action="store_true", help="measure a second time, beside a process that computes on all threads"
    )
    parser.add_argument(
        "--mpi",
        nargs="?",
        const="mpiexec",
        metavar="COMMAND",
        help="with several threads: needle also on as many ranks of one thread, started by COMMAND -n RANKS (mpiexec)",
    )
    parser.add_argument("--captured", action="store_true", help="needle with captured training steps, too")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and few runs: does it work, not how fast")
    parser.add_argument("--out", type=Path, help="folder for benchmark.md and benchmark.json (default: in runs/)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document with a marked place for the tables")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="report on an earlier benchmark.json, measure nothing"
    )
    options = parser.parse_args(arguments)
    possible = CASES if options.device == "cpu" else NETS
    options.cases = options.cases or list(possible)
    if unknown := [case for case in options.cases if case not in possible]:
        parser.error(f"--device cuda has the cases {', '.join(NETS)}, but got {', '.join(unknown)}")
    if options.device == "cuda" and (options.threads != [1] or options.busy or options.cpu_time):
        parser.error("--device cuda measures the time of one process, without --threads, --busy and --cpu-time")
    if options.mpi and (max(options.threads) == 1 or shutil.which((shlex.split(options.mpi) or [""])[0]) is None):
        parser.error(f"--mpi needs --threads of more than 1 and a program that starts ranks, but got {options.mpi}")
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    if not 0 < options.turn < math.inf:
        parser.error(f"--turn must be finite and greater than 0, but got {options.turn}")
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time adds up the time of all threads, so it needs --threads 1")
    options.rivals = list(dict.fromkeys(["torch", *options.rivals.split(","), "loops"]))
    if unknown := [name for name in options.rivals if name not in RIVALS]:
        parser.error(f"--rivals must be of {', '.join(RIVALS)}, but got {', '.join(unknown)}")
    for path in (options.read, options.write):
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    with user_errors("benchmark"):
        if options.write is not None and not report.PLACE.search(options.write.read_text("utf-8")):
            parser.error(f"{options.write} has no place for the tables: <!-- table --> … <!-- end -->")
    options.clock = "process_time" if options.cpu_time else "perf_counter"
    options.effort = (2, 0.0, 1) if options.smoke else (options.rounds, options.turn, 3)  # rounds, turn, fewest runs
    options.out = options.out or Path("runs") / ("smoke" if options.smoke else "benchmark")
    return options


if __name__ == "__main__":
    main()
