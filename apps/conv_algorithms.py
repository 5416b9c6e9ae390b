"""Time the algorithms of convolution beside each other, for layers of several kinds: tables for docs/convolution.md.

    OMP_NUM_THREADS=1 python apps/conv_algorithms.py --cpu-time

One table for each of the three products: forward, the gradient of the input, the gradient of the weight. In every round
the choice by shape and the algorithms by name take turns. The table shows the median time of the choice by shape in
milliseconds, and for each name the median over rounds of its time divided by that of the choice; in bold is the choice
itself: the first name that gives its bits. Activations lie batch-innermost, as a layer before would leave them; those
of the first layers are row-major images.
"""

import argparse
import os
import platform
import random
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np

import needle as ndl
import needle.nn.functional as F

PRODUCTS = {
    "forward": ("im2col", "winograd", "taps", "contraction"),
    "input gradient": ("phases", "winograd", "fold", "convolution"),
    "weight gradient": ("im2col", "taps", "winograd", "convolution"),
}
LAYERS = {  # name: shape of x, shape of weight, options
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


def activations(shape, innermost, requires_grad=False):
    """Random activations (N, C, *S), in memory batch-innermost or row-major."""
    if not innermost:
        return ndl.init.randn(*shape, requires_grad=requires_grad)
    rank = len(shape) - 2
    x = ndl.ops.permute(ndl.init.randn(*shape[1:], shape[0]), (rank + 1, *range(rank + 1)))
    return ndl.Tensor.make_const(x.cached_data, requires_grad=requires_grad)


def case(name, product):
    """A function without arguments that computes one product of a layer, and the algorithms to compare."""
    shape, weight_shape, options = LAYERS[name]
    x = activations(shape, not name.startswith("first"), product == "input gradient")
    weight = ndl.init.randn(*weight_shape, std=0.1, requires_grad=product == "weight gradient")
    convolve = F.conv1d if len(shape) == 3 else F.conv2d
    tiled = options.keys() <= {"padding"} and max(weight_shape[2:]) <= 3  # else winograd leaves the choice to the shape
    names = [algorithm for algorithm in PRODUCTS[product] if tiled or algorithm != "winograd"]
    if product == "forward":
        return lambda: convolve(x, weight, **options), names
    y = convolve(x, weight, **options)
    out_grad = activations(y.shape, True)
    place = ("input gradient", "weight gradient").index(product)
    return lambda: y.op.gradient(out_grad, y)[place], names


def by(algorithm):
    """The context in which that algorithm computes; None is the choice by shape."""
    return ndl.conv_algorithm(algorithm) if algorithm else nullcontext()


def elapsed(algorithm, function, clock, count):
    """Milliseconds of one call, by the mean of `count`, after one that leaves the caches as those of this algorithm."""
    with ndl.no_grad(), by(algorithm):
        function()
        start = clock()
        for _ in range(count):
            function()
    return (clock() - start) / count * 1000


def chosen(function, names):
    """The first name whose result has the bits of the choice by shape."""
    bits = {}
    for name in (None, *names):
        with ndl.no_grad(), by(name):
            bits[name] = function().numpy().tobytes()
    return next((name for name in names if bits[name] == bits[None]), None)


def compare(function, names, options):
    """The median time of the choice by shape, and the median ratio of each name to it."""
    clock = time.thread_time if options.cpu_time else time.perf_counter
    turns = [None, *names]
    count = max(1, round(options.turn / max(elapsed(name, function, clock, 1) for name in turns)))
    rounds = []
    for _ in range(options.rounds):
        random.shuffle(turns)  # one that leaves much memory behind slows the next one
        rounds.append({name: elapsed(name, function, clock, count) for name in turns})
    first = median(times[None] for times in rounds)
    return first, {name: median(times[name] / times[None] for times in rounds) for name in names}


def about(options):
    """One line: versions, processor, threads and the clock."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which the algorithms take turns")
    parser.add_argument("--turn", type=float, default=20, help="milliseconds of a turn, at least one call")
    parser.add_argument("--cpu-time", action="store_true", help="count the time of this thread only: for one thread")
    options = parser.parse_args()
    print(about(options), end="\n\n")
    for product, algorithms in PRODUCTS.items():
        print(f"| {product} | by shape, ms |", *(f"{name} |" for name in algorithms))
        print("|---|---|" + "---|" * len(algorithms))
        for layer in LAYERS:
            function, names = case(layer, product)
            picked = chosen(function, names)
            first, ratios = compare(function, names, options)
            cells = [f"{ratios[name]:.2f}×" if name in ratios else "" for name in algorithms]
            cells = [f"**{cell}**" if name == picked else cell for name, cell in zip(algorithms, cells, strict=True)]
            print("|", " | ".join([layer, f"{first:.2f}", *cells]), "|", flush=True)
        print()


if __name__ == "__main__":
    main()
