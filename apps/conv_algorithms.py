"""Time the algorithms of convolution beside each other, for layers of several kinds: a table for docs/convolution.md.

    OMP_NUM_THREADS=1 python apps/conv_algorithms.py --cpu-time

Forward is "im2col", "taps" or "contraction"; the gradients (that of the input and that of the weight, together) are
"fold" or "convolution". In every round the algorithms take turns. The table shows the median time of the first one of
each kind in milliseconds, and for the others the median over rounds of their time divided by its time in that round.
Activations lie batch-innermost, as a layer before would leave them; those of the first layer are row-major images.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from statistics import median

import numpy as np

import needle as ndl
import needle.nn.functional as F

FORWARD = ("im2col", "taps", "contraction")
BACKWARD = ("fold", "convolution")
LAYERS = {  # name: shape of x, shape of weight, options
    "first layer, 1→16, 5×5, 28×28, N=64": ((64, 1, 28, 28), (16, 1, 5, 5), {"padding": 2}),
    "16→32, 3×3, 28×28, N=64": ((64, 16, 28, 28), (32, 16, 3, 3), {"padding": 1}),
    "64→64, 3×3, 16×16, N=32": ((32, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}),
    "64→128, 1×1, 14×14, N=32": ((32, 64, 14, 14), (128, 64, 1, 1), {}),
    "depthwise 32, 3×3, 16×16, N=64": ((64, 32, 16, 16), (32, 1, 3, 3), {"padding": 1, "groups": 32}),
    "16→32, 3×3, stride 2, 28×28, N=64": ((64, 16, 28, 28), (32, 16, 3, 3), {"padding": 1, "stride": 2}),
    "16→32, 3×3, 28×28, N=1": ((1, 16, 28, 28), (32, 16, 3, 3), {"padding": 1}),
    "1-d, 16→32, kernel 9, length 1024, N=32": ((32, 16, 1024), (32, 16, 9), {"padding": 4}),
}


def activations(shape, innermost):
    """Random activations (N, C, *S), in memory batch-innermost or row-major."""
    if not innermost:
        return ndl.init.randn(*shape, requires_grad=True)
    rank = len(shape) - 2
    x = ndl.ops.permute(ndl.init.randn(*shape[1:], shape[0]), (rank + 1, *range(rank + 1)))
    return ndl.Tensor.make_const(x.cached_data, requires_grad=True)


def cases(name):
    """Two functions without arguments: the forward product, and the two gradients."""
    shape, weight_shape, options = LAYERS[name]
    x = activations(shape, not name.startswith("first"))
    weight = ndl.init.randn(*weight_shape, std=0.1, requires_grad=True)
    convolve = F.conv1d if len(shape) == 3 else F.conv2d
    y = convolve(x, weight, **options)
    out_grad = activations(y.shape, True)
    return lambda: convolve(x, weight, **options), lambda: y.op.gradient(out_grad, y)


def elapsed(algorithm, function, clock, count):
    """Milliseconds of one call, by the mean of `count`."""
    with ndl.no_grad(), ndl.conv_algorithm(algorithm):
        start = clock()
        for _ in range(count):
            function()
    return (clock() - start) / count * 1000


def compare(algorithms, function, options):
    """The median time of the first algorithm and the median ratios of the others to it."""
    clock = time.thread_time if options.cpu_time else time.perf_counter
    warm = [max(elapsed(name, function, clock, 1) for _ in range(2)) for name in algorithms]
    count = max(1, round(options.turn / max(warm)))
    rounds = [[elapsed(name, function, clock, count) for name in algorithms] for _ in range(options.rounds)]
    first, *others = zip(*rounds, strict=True)
    return median(first), [median(b / a for a, b in zip(first, other, strict=True)) for other in others]


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
    print("| layer | im2col, ms | taps | contraction | gradients: fold, ms | convolution |")
    print("|---|---|---|---|---|---|")
    for name in LAYERS:
        forward, backward = cases(name)
        figures = [compare(*case, options) for case in ((FORWARD, forward), (BACKWARD, backward))]
        cells = [cell for first, ratios in figures for cell in (f"{first:.2f}", *(f"{r:.2f}×" for r in ratios))]
        print("|", " | ".join([name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
