"""Time needle beside PyTorch and others on the same work: networks, single ops, overhead, memory, growth.

    python apps/benchmark.py --threads 1 2 --write docs/performance.md     # everything, and the table of the docs
    python apps/benchmark.py --cases lenet conv1d --rivals torch,mygrad,dezero

Each library works in a process of its own (benchmark_rival.py), a fresh one for each case unless sizes are tiny, with
the number of threads in its environment. Before a row is timed, all must compute the same: five losses from the same
weights and batches, or the result of the op. Then the libraries take turns, A B A B. A turn leaves its first runs out
and gives the median time of the others. The tables (benchmark_report.py) show medians over the rounds; of a ratio,
taken within each round, the median and the range. On a busy machine elapsed time says little; with one thread
--cpu-time counts the time that the process had a core.

Where OPENBLAS_CORETYPE or OPENBLAS_L2_SIZE is set, which ties NumPy's OpenBLAS to the kernels or the cache of another
CPU, needle is timed with it, "pinned", and without, "native"; its rivals run without.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

if __package__:  # imported as apps.benchmark; otherwise the folder apps is on sys.path
    from apps import benchmark_report as report
    from apps.benchmark_cases import CASES, NETS, RIVALS, Import
else:
    import benchmark_report as report
    from benchmark_cases import CASES, NETS, RIVALS, Import

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
TOLERANCE = 1e-4  # relative, for float32


class Rival:
    """A process in which one library does the work; `about` is None where that library is not installed."""

    def __init__(self, library, options, environment):
        script = Path(__file__).with_name("benchmark_rival.py")
        command = [sys.executable, script, library, options.clock, *["small"] * options.smoke]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # In a session of its own a rival hears nothing of Ctrl-C here; it ends when its stdin does.
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def start(self):
        self.about = self._answer()

    def ask(self, case, row, first, count):
        return self._request([case, row, first, count])

    def peak(self):
        return self._request(None)

    def _request(self, request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("benchmark: a rival's process ended early; what it said is above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Importer:
    """The same for the case "import": each turn is one import in a fresh process."""

    def __init__(self, library, options, environment):
        code = f"from time import {options.clock} as clock; start = clock(); import {library}; print(clock() - start)"
        self.library, self.command, self.environment = library, [sys.executable, "-c", code], environment

    def start(self):
        """Import once, which leaves the files in the system's cache."""
        done = self._run()
        self.about = None if f"No module named '{self.library}'" in done.stderr else f"import {self.library}"
        if done.returncode and self.about:
            raise SystemExit(f"benchmark: {self.about} fails:\n{done.stderr}")

    def ask(self, case, row, first, count):
        return float(self._run().stdout)

    def _run(self):
        return subprocess.run(self.command, env=self.environment, capture_output=True, text=True, check=False)

    def close(self):
        pass


def takes_part(name, case):
    """Whether a rival of that name has the case."""
    return name.startswith("needle") or case in RIVALS[name]


def start(cases, threads, options):
    """The rivals for some cases by the names that the tables give them, and which libraries are not installed."""
    pinned = os.environ | dict.fromkeys(THREADS, str(threads))
    native = {name: value for name, value in pinned.items() if name not in PINS}
    libraries = {"needle": ("needle", native)}
    if pinned != native:
        libraries = {"needle (pinned)": ("needle", pinned), "needle (native)": ("needle", native)}
    libraries |= {name: (name, native) for name in options.rivals if any(takes_part(name, case) for case in cases)}
    kind = Importer if cases == ["import"] else Rival
    found = {name: kind(library, options, environment) for name, (library, environment) in libraries.items()}
    for rival in found.values():
        rival.start()
    missing = [name for name, rival in found.items() if rival.about is None]
    for name in missing:
        found.pop(name).close()
    return found, missing


def prove(found, case, row, runs):
    """Stop where the rivals do not compute the same."""
    results = {name: rival.ask(case, row, runs, 0) for name, rival in found.items()}
    wanted = results.get("torch") or list(results.values())[-1]
    for name, given in results.items():
        for (size, projection), (wanted_size, wanted_projection) in zip(given, wanted, strict=True):
            error = math.hypot(size - wanted_size, projection - wanted_projection) / wanted_size
            if not error <= TOLERANCE:
                raise SystemExit(f"benchmark: {case}, {row} of {name} is off by {error:.1e}: {given}, not {wanted}")


def measure(found, case, row, rounds, turn, least):
    """The times of one row in seconds: name -> one per round, each the median of a turn of about `turn` seconds."""
    slowest = max(rival.ask(case, row, 1, least) for rival in found.values())
    count = max(least, round(turn / slowest))
    times = {name: [] for name in found}
    for _ in range(rounds):
        for name, rival in found.items():
            times[name].append(rival.ask(case, row, 1 + count // 3, count))
    return times


def run_cases(cases, threads, options, run):
    """Prove and measure cases with the same processes, and put what was found into `run`."""
    started, missing = start(cases, threads, options)
    run["missing"] = sorted({*run["missing"], *missing})
    try:
        for case, row, work in ((name, *entry) for name in cases for entry in CASES[name].items()):
            print(f"threads {threads}, {case}: {row}", file=sys.stderr, flush=True)
            work = work.small() if options.smoke else work
            found = {name: rival for name, rival in started.items() if takes_part(name, case)}
            if not isinstance(work, Import):
                prove(found, case, row, work.runs)
            times = measure(found, case, row, *options.effort)
            seconds = {name: [time / work.per for time in turns] for name, turns in times.items()}
            entry = {"case": case, "row": row, "products": work.products, "seconds": seconds}
            run["rows"].append(entry | {"ratios": report.ratios(seconds)})
            if case in NETS:
                run["memory"][case] = {name: rival.peak() for name, rival in found.items()}
        run["rivals"] |= {name: rival.about for name, rival in started.items() if cases != ["import"]}
    finally:
        for rival in started.values():
            rival.close()


def shared(options):
    """Lists of the cases that share processes: one case each, or with tiny sizes all but "import"."""
    if not options.smoke:
        return [[case] for case in options.cases]
    together = [case for case in options.cases if case != "import"]
    return [cases for cases in (together, ["import"]) if cases and cases[0] in options.cases]


def machine():
    """The CPU, the number of cores that this process may use, the system, Python, and variables that steer BLAS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
        cpu = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        cpu = platform.processor() or platform.machine()
    pins = "".join(f", {name}={os.environ[name]}" for name in PINS if name in os.environ)
    return f"{cpu}, cores: {cores}, {platform.system()}, Python {platform.python_version()}{pins}"


def save(record, options):
    """Write the record and its report, and the report into the marked place of a document."""
    options.out.mkdir(parents=True, exist_ok=True)
    text = report.text(record)
    (options.out / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (options.out / "benchmark.md").write_text(text, "utf-8")
    if options.write is not None:
        options.write.write_text(report.fill(options.write.read_text("utf-8"), text), "utf-8")


def main(arguments=None):
    """Run the script; returns the text of its report."""
    options = parse(arguments)
    if options.read is not None:
        record = json.loads(options.read.read_text("utf-8"))
        save(record, options)
    else:
        record = {"machine": machine(), "clock": options.clock, "rounds": options.effort[0], "smoke": options.smoke}
        record["runs"] = []
        for threads in options.threads:
            run = {"threads": threads, "rivals": {}, "missing": [], "rows": [], "memory": {}}
            record["runs"].append(run)
            for cases in shared(options):
                run_cases(cases, threads, options, run)
                save(record, options)
    text = report.text(record)
    print(text, end="")
    return text


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="of BLAS and of the rivals; tables for each (default: 1)"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rivals", default="torch", help="with commas; torch always: " + ", ".join(RIVALS))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each rival (default: %(default)s)")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of a turn (default: %(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="instead of elapsed time, where others use the CPU too")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and few runs: whether it works, not how fast")
    parser.add_argument("--out", type=Path, help="folder for benchmark.md and benchmark.json (default: in runs/)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document with a place for the tables")
    parser.add_argument("--read", type=Path, metavar="FILE", help="an earlier benchmark.json, instead of measuring")
    options = parser.parse_args(arguments)
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time adds up the time of all threads, so it needs --threads 1")
    options.rivals = list(dict.fromkeys(["torch", *options.rivals.split(","), "loops"]))
    if unknown := [name for name in options.rivals if name not in RIVALS]:
        parser.error(f"--rivals must be of {', '.join(RIVALS)}, but got {', '.join(unknown)}")
    for path in (options.read, options.write):
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    if options.write is not None and not report.PLACE.search(options.write.read_text("utf-8")):
        parser.error(f"{options.write} has no place for the tables: <!-- table --> … <!-- end -->")
    options.clock = "process_time" if options.cpu_time else "perf_counter"
    options.effort = (2, 0.0, 1) if options.smoke else (options.rounds, options.turn, 3)  # rounds, turn, fewest runs
    options.out = options.out or Path("runs") / ("smoke" if options.smoke else "benchmark")
    return options


if __name__ == "__main__":
    main()
