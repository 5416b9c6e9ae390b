"""Time a training step of TinyCNN and single ops of it: needle beside PyTorch (eager) on the same work.

    python apps/benchmark.py --threads 1 2 --out runs/benchmark      # a table for 1 thread and one for 2

Each rival is a process of its own (benchmark_rival.py) with the number of threads in its environment. Before anything
is timed, both must compute the same: five losses from the same weights and batches, and the result of every single op.
Then the rivals take turns, A B A B. A turn leaves its first runs out and gives the median time of the others. The table
shows the median of all turns; of the ratio needle / torch within a round it shows the median and the range. On a busy
machine elapsed time says little; with one thread --cpu-time counts the time that the rival's process had a core.

Where OPENBLAS_CORETYPE is set, which makes OpenBLAS use the kernels of the CPU that it names, needle is timed with it
and, as "needle (native)", without.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
CORETYPE = "OPENBLAS_CORETYPE"
STEP, OPS = "training step", (
    "conv2d", "conv2d, input gradient", "conv2d, weight gradient", "max-pool", "max-pool, gradient", "batch norm",
    "batch norm, its three gradients", "Adam step",
)  # fmt: skip
TOLERANCE = 1e-4  # relative, for float32


class Rival:
    """A process in which one library does the work; `about` is None where that library is not installed."""

    def __init__(self, library, work, environment):
        script = Path(__file__).with_name("benchmark_rival.py")
        command = [sys.executable, script, library, *map(str, work)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # In a session of its own a rival hears nothing of Ctrl-C here; it ends when its stdin does.
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        self.about = self._answer()

    def ask(self, case, first, count):
        print(json.dumps([case, first, count]), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("benchmark: a rival's process ended early; what it said is above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def rivals(work, threads):
    """The processes by the names that the table gives them."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    found = {"needle": Rival("needle", work, environment)}
    if CORETYPE in environment:
        free = {name: value for name, value in environment.items() if name != CORETYPE}
        found["needle (native)"] = Rival("needle", work, free)
    torch = Rival("torch", work, environment)
    return found if torch.about is None else found | {"torch": torch}


def prove(found):
    """Stop where the rivals do not compute the same."""
    for case in (STEP, *OPS):
        results = {name: rival.ask(case, 5 if case == STEP else 1, 0) for name, rival in found.items()}
        wanted = list(results.values())[-1]
        for name, given in results.items():
            for (size, projection), (wanted_size, wanted_projection) in zip(given, wanted, strict=True):
                error = math.hypot(size - wanted_size, projection - wanted_projection) / wanted_size
                if not error <= TOLERANCE:
                    raise SystemExit(f"benchmark: {case} of {name} is off by {error:.1e}: {given}, not {wanted}")


def measure(found, case, rounds, turn):
    """The times of one case in seconds: name -> one per round, each the median of a turn of about `turn` seconds."""
    slowest = max(rival.ask(case, 1, 3) for rival in found.values())
    count = max(3, round(turn / slowest))
    times = {name: [] for name in found}
    for _ in range(rounds):
        for name, rival in found.items():
            times[name].append(rival.ask(case, 1 + count // 3, count))
    return times


def table(results, names):
    """The results as a Markdown table."""
    needles, torch = [name for name in names if name != "torch"], "torch" in names
    rows = [["", *(f"{name} [ms]" for name in names), *(f"{name} / torch" for name in needles if torch)]]
    rows.append([":--", *["--:"] * (len(rows[0]) - 1)])
    for case, times in results.items():
        cells = [f"{median(times[name]) * 1e3:.3g}" for name in names]
        for name in needles if torch else ():
            ratios = [a / b for a, b in zip(times[name], times["torch"], strict=True)]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        rows.append([case, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def machine():
    """The CPU, the number of cores that this process may use, the system and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
        cpu = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        cpu = platform.processor() or platform.machine()
    return f"{cpu}, cores: {cores}, {platform.system()}, Python {platform.python_version()}"


def main(arguments=None):
    """Run the script; returns the text of its report."""
    options = parse(arguments)
    sizes, rounds, turn = ((4, 8), 2, 0.0) if options.smoke else ((64, 28), options.rounds, 0.3)
    clock = "process_time" if options.cpu_time else "perf_counter"
    record = {"machine": machine(), "clock": clock, "batch": sizes[0], "side": sizes[1], "rounds": rounds, "runs": []}
    time = "CPU time" if options.cpu_time else "elapsed time"
    report = [
        f"{record['machine']}. TinyCNN, float32, batch {sizes[0]} of 1x{sizes[1]}x{sizes[1]}.",
        f"Medians of {rounds} rounds, {time}. Above 1 a ratio means that torch is faster; its range is in brackets.",
    ]
    print(*report, sep="\n")
    for threads in options.threads:
        found = rivals((*sizes, clock), threads)
        try:
            prove(found)
            results = {case: measure(found, case, rounds, turn) for case in (STEP, *OPS)}
        finally:
            for rival in found.values():
                rival.close()
        about = {name: rival.about for name, rival in found.items()}
        same = "Both compute the same" if "torch" in found else "torch is not installed, needle is timed alone"
        part = ["", f"Threads: {threads}. {same}:", "", *(f"- {name}: {text}" for name, text in about.items()), ""]
        part.append(table(results, list(found)))
        print(*part, sep="\n", flush=True)
        report += part
        record["runs"].append({"threads": threads, "rivals": about, "seconds": results})
    text = "\n".join(report) + "\n"
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "benchmark.md").write_text(text, "utf-8")
        (options.out / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return text


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="of BLAS and of torch; a table for each (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each rival (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for benchmark.md and benchmark.json")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and few runs: whether it works, not how fast")
    parser.add_argument("--cpu-time", action="store_true", help="instead of elapsed time, where others use the CPU too")
    options = parser.parse_args(arguments)
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time adds up the time of all threads, so it needs --threads 1")
    return options


if __name__ == "__main__":
    main()
