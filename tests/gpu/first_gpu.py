"""What to run first on a machine with a GPU: is needle right there, how fast is it, what can be captured. `make gpu`.

python -m tests.gpu.first_gpu [--smoke] [--only launches,steps] [--seconds 570]

Each part runs in a process of its own, so that one that breaks the GPU's context stops no other, the most important
first. $OUT/gpu.json, by default runs/gpu/gpu.json, is written after each part. Nothing is downloaded: Python needs
CuPy, torch, pytest and hypothesis. `--smoke` runs tiny sizes on the null device: does this script work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.gpu.first_ranks import MISSING, nccl, ranks

ROOT = Path(__file__).resolve().parents[2]
KERNELS = "pool", "columns", "batch", "norm", "conv", "linear", "optimizer", "loss", "reduce", "clip", "join", "random"
KERNEL_TESTS = [f"tests/gpu/test_{name}.py" for name in KERNELS]
NETWORKS = ("lenet", "resnet9", "autoencoder", "depthwise", "conv1d", "vgg", "cnn")
LINES = 30  # of a program's output, from its end, that are kept
REPORT = "report: "


# ---- measured in a process of its own: each function returns what goes into the file ---------------------------------


def report(found: dict[str, Any]) -> None:
    """Say what a part has found so far: the last report counts, should the part fail or be stopped."""
    print(REPORT + json.dumps(found, default=str), flush=True)  # noqa: T201


def machine(smoke: bool) -> dict[str, Any]:
    """Versions, and what the doctor says."""
    import numpy as np

    import needle as ndl
    from needle.doctor import findings

    cupy = ndl.cuda().xp  # raises an error that says what is missing
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "second-level cache": properties["l2CacheSize"],
        "capability": cupy.cuda.Device().compute_capability,
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "doctor": [f"{subject}: {finding}" for subject, finding in findings()],
    }


def timed(function: Callable[[], Any], repeat: int, inner: int = 1) -> dict[str, float]:
    """Medians in µs of what the host takes for a call, and what the device takes, by events."""
    import cupy
    import numpy as np

    host, device = [], []
    for _ in range(3):
        function()
    cupy.cuda.Device().synchronize()
    for _ in range(repeat):
        first, last = cupy.cuda.Event(), cupy.cuda.Event()
        first.record()
        start = time.perf_counter()
        for _ in range(inner):
            function()
        host.append((time.perf_counter() - start) / inner)
        last.record()
        last.synchronize()
        device.append(cupy.cuda.get_elapsed_time(first, last) / inner)
    return {"host": round(float(np.median(host)) * 1e6, 2), "device": round(float(np.median(device)) * 1e3, 2)}


def launches(smoke: bool) -> dict[str, Any]:
    """What a launch costs, by kind; and a node of a graph."""
    import cupy
    import numpy as np

    images, scores, square = cupy.ones((64, 16, 28, 28), "f4"), cupy.ones((64, 10), "f4"), cupy.ones((64, 64), "f4")
    empty = cupy.RawKernel('extern "C" __global__ void none(float* x, int n) { if (n < 0) x[0] = 1; }', "none")

    def launch() -> None:
        empty((1,), (32,), (images, np.int32(5)))

    repeat, inner = (2, 2) if smoke else (30, 50)
    calls = {
        "ufunc with out": lambda: cupy.add(images, images, images),
        "ufunc": lambda: images + images,
        "sum": lambda: scores.sum(axis=1),
        "matmul": lambda: square @ square,
        "strided copy": lambda: cupy.ascontiguousarray(images.transpose(1, 2, 3, 0)),
        "RawKernel": launch,
    }
    found: dict[str, Any] = {name: timed(call, repeat, inner) for name, call in calls.items()}
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        for _ in range(200):
            launch()
        graph = stream.end_capture()
        graph.upload(stream)
    found["graph of 200 empty kernels"] = timed(graph.launch, repeat)
    size = 1 << (16 if smoke else 28)
    source, target = cupy.ones(size, "f4"), cupy.empty(size, "f4")
    took = timed(lambda: cupy.copyto(target, source), repeat)
    found["copy, GB/s"] = round(8 * size / took["device"] / 1e3, 1) if took["device"] else None
    return found


def steps(smoke: bool) -> dict[str, Any]:
    """Training steps of each network: losses beside the CPU's, waits, times of host and device."""
    import cupyx

    import needle as ndl
    from tests.gpu.null.steps import NETWORKS as NETS
    from tests.gpu.null.steps import Training

    found: dict[str, Any] = {}
    for name in NETWORKS[: 1 if smoke else None]:
        here, there = (Training(NETS[name].small(), place) for place in (ndl.cpu(), ndl.cuda()))
        pairs = [(here.step().item(), there.step().item()) for _ in range(5)]
        entry: dict[str, Any] = {
            "losses (CPU, GPU)": pairs,
            "largest difference": max(abs(a - b) / abs(a) for a, b in pairs),
        }
        full = there if smoke else Training(NETS[name], ndl.cuda())
        start = time.perf_counter()
        full.step().item()
        entry["first step, s"] = round(time.perf_counter() - start, 2)
        for _ in range(3):
            full.step()
        try:
            with cupyx.allow_synchronize(False):
                full.step()
            entry["waits"] = None
        except Exception as error:
            entry["waits"] = repr(error)
        entry["µs"] = timed(full.step, 2 if smoke else 20)
        found[name] = entry
        report(found)
    return found


def with_batch(training: Any) -> Callable[..., Any]:
    """The step of a training, as a function of its batch."""

    def step(x: Any, target: Any) -> Any:
        training.x, training.target = x, target
        return training.step()

    return step


def captured(smoke: bool) -> dict[str, Any]:
    """Captured steps of each network: bits beside the eager ones, warnings, and times of host and device."""
    import warnings

    import needle as ndl
    from tests.gpu.null.steps import NETWORKS as NETS
    from tests.gpu.null.steps import Training

    found: dict[str, Any] = {}
    for name in NETWORKS[: 1 if smoke else None]:
        net = NETS[name].small() if smoke else NETS[name]
        eager, other = Training(net, ndl.cuda()), Training(net, ndl.cuda())
        step = ndl.capture(with_batch(other))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pairs = [(eager.step().item(), step(other.x, other.target).item()) for _ in range(6)]
        entry: dict[str, Any] = {"losses (eager, captured)": pairs, "equal bits": all(a == b for a, b in pairs)}
        entry["warnings"] = [str(warning.message) for warning in caught]
        entry["µs"] = timed(lambda step=step, other=other: step(other.x, other.target), 2 if smoke else 50)
        found[name] = entry
        report(found)
    return found


def benchmark(smoke: bool) -> dict[str, Any]:
    """needle, eager and captured, beside torch, eager and as one graph, by `apps.benchmark --device cuda`."""
    from apps.benchmark import __main__ as program
    from apps.benchmark import measure

    names = ["lenet"] if smoke else ["lenet", "resnet9", "autoencoder", "depthwise", "conv1d", "cifar", "vgg"]
    if smoke:
        start = "from tests.gpu.null import device; device.start(); import runpy; "
        measure.WORKER = [
            sys.executable,
            "-c",
            f"{start}runpy.run_module('apps.benchmark.worker', run_name='__main__')",
        ]
    found: dict[str, Any] = {}
    for name in names:  # apart, so that one that fails stops no other
        with TemporaryDirectory() as out:
            options = ["--device", "cuda", "--cases", name, "--rounds", "3", "--out", out, *["--smoke"] * smoke]
            try:
                program.main(options)
                found[name] = json.loads((Path(out) / "benchmark.json").read_text("utf-8"))
            except (Exception, SystemExit) as error:
                found[name] = repr(error)
        report(found)
    return found


MEASURED = {function.__name__: function for function in (machine, launches, steps, captured, nccl, ranks, benchmark)}


# ---- programs: their status and the end of their output go into the file ---------------------------------------------


def pytest(*arguments: str, smoke: bool, plugin: str = "", workers: int = 1) -> list[str]:
    many = ["-n", str(workers)] if workers > 1 and find_spec("xdist") else ["-p", "no:xdist"]
    plugins = ["-p", plugin] if plugin else ["-p", "tests.gpu.null.plugin"] if smoke else []
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *many, *plugins, *arguments]


def kernels(smoke: bool) -> list[str]:
    """The tests of the raw kernels, with the GPU in place of the CPU."""
    return pytest(
        *KERNEL_TESTS[: 1 if smoke else None], smoke=smoke, plugin="tests.gpu.on_gpu", workers=1 if smoke else 4
    )


def sanitizer(tool: str) -> Callable[[bool], list[str] | None]:
    def command(smoke: bool) -> list[str] | None:
        program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        tests = pytest(*KERNEL_TESTS[:3], "-x", smoke=smoke, plugin="tests.gpu.on_gpu")
        return [program, "--tool", tool, "--error-exitcode", "9", *tests] if program else None

    return command


def suite(smoke: bool) -> list[str]:
    """A sixth of the suite's tests on the GPU: one test file of each six, other ones first."""
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py") if "null" not in path.parts)
    chosen = ["tests/data/test_feed_on_gpu.py"] if smoke else files[::6]
    options = ("-m", "gpu and not slow", "--hypothesis-profile", "quick")
    return pytest(*options, *chosen, smoke=smoke, workers=1 if smoke else 12)


# name -> what to run, and the seconds that it may take
PARTS: dict[str, tuple[Callable[[bool], Any], int]] = {
    "machine": (machine, 40),
    "kernels": (kernels, 100),
    "steps": (steps, 120),
    "captured": (captured, 90),
    "nccl": (nccl, 40),
    "ranks": (ranks, 60),
    "launches": (launches, 40),
    "benchmark": (benchmark, 150),
    "memcheck": (sanitizer("memcheck"), 60),
    "racecheck": (sanitizer("racecheck"), 60),
    "suite": (suite, 150),
}


# ---- running ---------------------------------------------------------------------------------------------------------


def out_folder() -> Path:
    folder = Path(os.environ.get("OUT") or ROOT / "runs/gpu")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(name: str, smoke: bool, seconds: float) -> dict[str, Any]:
    """Run a part in processes of its own: what it has found, and how it ended."""
    what, _ = PARTS[name]
    command: Any = [sys.executable, "-m", "tests.gpu.first_gpu", "--part", name, *["--smoke"] * smoke]
    if name not in MEASURED:
        command = what(smoke)
    if command is None:
        return {"status": MISSING}
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    variables |= {"PYTHONUNBUFFERED": "1"} | ({"NEEDLE_NULL_DEVICE": "1"} if smoke else {})
    start, log = time.perf_counter(), out_folder() / "gpu.log"
    with log.open("ab") as file:  # no pipe: processes that it leaves behind may hold that open
        before = file.write(f"---- {name}\n".encode()) + log.stat().st_size
        file.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = str(process.wait(timeout=seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            status = f"stopped after {seconds:.0f} s"
    result: dict[str, Any] = {"status": status, "seconds": round(time.perf_counter() - start, 1)}
    lines = log.read_bytes()[before:].decode("utf-8", "replace").splitlines()
    found = [line for line in lines if line.startswith(REPORT)]
    result |= {"found": json.loads(found[-1].removeprefix(REPORT))} if found else {}
    if status == "0" and MISSING in result.get("found", {}):
        result["status"] = MISSING
    if status != "0" or not found:
        result["output"] = [line for line in lines if not line.startswith(REPORT)][-LINES:]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.first_gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the null device: does this script work")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=570, help="for all parts (default: %(default)s)")
    parser.add_argument("--part", choices=MEASURED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        if options.smoke:
            from tests.gpu.null import device

            device.start()
        report(MEASURED[options.part](options.smoke))
        return 0
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"--only must be of {', '.join(PARTS)}, but got {', '.join(unknown)}")
    end, results, failed = time.perf_counter() + options.seconds, {}, []
    for name in chosen:
        left = min(PARTS[name][1] * (5 if options.smoke else 1), end - time.perf_counter())  # it may have to be built
        results[name] = run(name, options.smoke, left) if left > 5 else {"status": "no time was left"}
        (out_folder() / "gpu.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
        failed += [name] * (results[name]["status"] not in ("0", MISSING))
        cause = results[name].get("output", [])[-1:] if name in failed else []
        cause += filter(None, [results[name].get("found", {}).get(MISSING)])
        print(f"{name}: {results[name]['status']}, {results[name].get('seconds', 0)} s", *cause, flush=True)  # noqa: T201
    print(f"{out_folder() / 'gpu.json'}; failed: {', '.join(failed) or 'none'}")  # noqa: T201
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
