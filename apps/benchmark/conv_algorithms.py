"""Compare the times of the convolution algorithms for several kinds of layers: the tables of the docs.

    OMP_NUM_THREADS=1 python -m apps.benchmark.conv_algorithms --cpu-time

Prints one table for each pass: forward, input gradient, weight gradient. In every round the choice by shape and the
named algorithms take turns. A row shows the median time of the choice by shape in milliseconds and, for each name, the
median over the rounds of its time divided by the time of the choice. The choice itself is bold: the first name that
computes the same bits. Activations are batch-last in memory, as a previous layer leaves them; the inputs of the layers
called "first" are row-major images.
"""

from __future__ import annotations

import sys

if not __package__:
    print("benchmark: it must run as a module, by python -m apps.benchmark.conv_algorithms", file=sys.stderr)
    raise SystemExit(2)

import argparse
import math
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import needle as ndl
import needle.nn.functional as F

from ..errors import interruptible

PASSES = {
    "forward": ("toeplitz", "im2col", "winograd", "taps", "tensordot"),  # toeplitz and im2col may give the same bits
    "input gradient": ("polyphase", "winograd", "col2im", "convolution"),
    "weight gradient": ("im2col", "taps", "winograd", "convolution"),
}
LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]] = {  # name: x, weight, options
    "first layer, 1→16, 5×5, 28×28, N=64": ((64, 1, 28, 28), (16, 1, 5, 5), {"padding": 2}),
    "first layer, 3→32, 7×7, stride 2, 64×64, N=16": ((16, 3, 64, 64), (32, 3, 7, 7), {"padding": 3, "stride": 2}),
    "16→32, 3×3, 28×28, N=64": ((64, 16, 28, 28), (32, 16, 3, 3), {"padding": 1}),
    "64→64, 3×3, 16×16, N=32": ((32, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}),
    "128→128, 3×3, 14×14, N=16": ((16, 128, 14, 14), (128, 128, 3, 3), {"padding": 1}),
    "64→128, 1×1, 14×14, N=32": ((32, 64, 14, 14), (128, 64, 1, 1), {}),
    "depthwise 32, 3×3, 16×16, N=64": ((64, 32, 16, 16), (32, 1, 3, 3), {"padding": 1, "groups": 32}),
    "16→32, 3×3, stride 2, 28×28, N=64": ((64, 16, 28, 28), (32, 16, 3, 3), {"padding": 1, "stride": 2}),
    "64→64, 3×3, stride 2, 16×16, N=32": ((32, 64, 16, 16), (64, 64, 3, 3), {"padding": 1, "stride": 2}),
    "16→32, 3×3, 28×28, N=1": ((1, 16, 28, 28), (32, 16, 3, 3), {"padding": 1}),
    "1-d, 16→32, kernel 9, length 1024, N=32": ((32, 16, 1024), (32, 16, 9), {"padding": 4}),
}


def activations(shape: Sequence[int], batch_last: bool, requires_grad: bool = False) -> ndl.Tensor:
    """Random activations (N, C, *S), batch-last in memory or row-major."""
    if not batch_last:
        return ndl.init.randn(*shape, requires_grad=requires_grad)
    rank = len(shape) - 2
    x = ndl.ops.permute(ndl.init.randn(*shape[1:], shape[0]), (rank + 1, *range(rank + 1)))
    return ndl.Tensor.make_const(x.cached_data, requires_grad=requires_grad)


def case(name: str, part: str) -> tuple[Callable[[], ndl.Tensor], list[str]]:
    """A function without arguments that computes one pass of a layer, and the algorithms to compare."""
    shape, weight_shape, options = LAYERS[name]
    x = activations(shape, not name.startswith("first"), part == "input gradient")
    weight = ndl.init.randn(*weight_shape, std=0.1, requires_grad=part == "weight gradient")
    convolve = F.conv1d if len(shape) == 3 else F.conv2d
    tiled = options.keys() <= {"padding"} and max(weight_shape[2:]) <= 3  # what winograd supports
    depthwise = options.get("groups") == shape[1] == weight_shape[0]  # what toeplitz supports
    applies = {"winograd": tiled, "toeplitz": depthwise}
    names = [algorithm for algorithm in PASSES[part] if applies.get(algorithm, True)]
    if part == "forward":
        return lambda: convolve(x, weight, **options), names
    y = convolve(x, weight, **options)
    out_grad = activations(y.shape, True)
    position = ("input gradient", "weight gradient").index(part)
    return lambda: y.op.gradient(out_grad, y)[position], names


def by(algorithm: str | None) -> AbstractContextManager[Any]:
    """A context that selects `algorithm`; None is the choice by shape."""
    return ndl.conv_algorithm(algorithm) if algorithm else nullcontext()


def elapsed(algorithm: str | None, function: Callable[[], ndl.Tensor], clock: Callable[[], float], count: int) -> float:
    """Milliseconds per call: the mean of `count` calls, after one that warms the caches for this algorithm."""
    with ndl.no_grad(), by(algorithm):
        function()
        start = clock()
        for _ in range(count):
            function()
    return (clock() - start) / count * 1000


def chosen(function: Callable[[], ndl.Tensor], names: Sequence[str]) -> str | None:
    """The first name that computes the same bits as the choice by shape."""
    bits: dict[str | None, bytes] = {}
    for name in (None, *names):
        with ndl.no_grad(), by(name):
            bits[name] = function().numpy().tobytes()
    return next((name for name in names if bits[name] == bits[None]), None)


def compare(
    function: Callable[[], ndl.Tensor], names: Sequence[str], options: argparse.Namespace
) -> tuple[float, dict[str, float]]:
    """The median time of the choice by shape in milliseconds, and the median ratio of each name to it."""
    clock = time.thread_time if options.cpu_time else time.perf_counter
    turns: list[str | None] = [None, *names]
    count = max(1, round(options.turn / max(elapsed(name, function, clock, 1) for name in turns)))
    rounds = []
    for _ in range(options.rounds):
        random.shuffle(turns)  # an algorithm with a large working set slows the next one
        rounds.append({name: elapsed(name, function, clock, count) for name in turns})
    return median(times[None] for times in rounds), {
        name: median(times[name] / times[None] for times in rounds) for name in names
    }


def about(options: argparse.Namespace) -> str:
    """One line: versions, CPU, threads and the clock."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    threads, core = (os.environ.get(name, "unset") for name in ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE"))
    clock = "processor time" if options.cpu_time else "elapsed time"
    return (
        f"NumPy {np.__version__}, {blas['name']} {blas['version']}, {cpu}, OMP_NUM_THREADS {threads}, "
        f"OPENBLAS_CORETYPE {core}; float32, {clock}, {options.rounds} rounds."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.benchmark.conv_algorithms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns (default: %(default)s)")
    parser.add_argument(
        "--turn", type=float, default=20, help="milliseconds per turn, at least one call (default: %(default)s)"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the CPU time of this thread: for one thread only"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not 0 < options.turn < math.inf:
        parser.error("--rounds must be at least 1, and --turn finite and greater than 0")
    with interruptible(lambda: ""):
        print_tables(options)


def print_tables(options: argparse.Namespace) -> None:
    """Print a table for each pass."""
    print(about(options), end="\n\n")
    for part, algorithms in PASSES.items():
        print(f"| {part} | by shape, ms |", *(f"{name} |" for name in algorithms))
        print("|---|---|" + "---|" * len(algorithms))
        for layer in LAYERS:
            function, names = case(layer, part)
            choice = chosen(function, names)
            milliseconds, ratios = compare(function, names, options)
            cells = [f"{ratios[name]:.2f}×" if name in ratios else "" for name in algorithms]
            cells = [f"**{cell}**" if name == choice else cell for name, cell in zip(algorithms, cells, strict=True)]
            print("|", " | ".join([layer, f"{milliseconds:.2f}", *cells]), "|", flush=True)
        print()


if __name__ == "__main__":
    main()
