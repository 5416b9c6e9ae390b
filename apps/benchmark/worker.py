"""A worker process of the benchmark: the work of one library.

    python -m apps.benchmark.worker needle perf_counter      # library, clock; optionally "small" for tiny sizes
    python -m apps.benchmark.worker needle-workers perf_counter --ranks 2      # a library that uses several processes
    python -m apps.benchmark.worker needle-captured perf_counter               # a library on a GPU

measure.py starts this program and talks to it in lines of JSON. The first line on stdout describes the library, or is
null if it is not installed. Then each request on stdin gets one answer. [case, row, first, count] is answered by the
median time in seconds of `count` runs after `first` warm-up runs; if count is 0, by the fingerprints of `first` runs.
"memory" is answered by the peak memory in bytes, "exchanges" by their share of the time of the current row. Where a
library uses several processes, all ranks get the requests and rank 0 answers; the memory is that of all together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from . import cases
from .libraries import ADAPTERS, adapter_of
from .libraries.loops import Loops

Library = Any  # an adapter
Tensor = Any  # of its library

# ---- data: the same for every library --------------------------------------------------------------------------------


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def weights(net: cases.Net) -> list[np.ndarray]:
    """The initial parameters of a network, in order."""
    specs = [spec for layer, shape in cases.steps(net.layers, net.shape) for spec in layer.parameters(shape)]
    return [mean + normal(i, *shape) * np.float32(scale) for i, (shape, mean, scale) in enumerate(specs)]


def labels(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, count)


# ---- work: each function returns a function without arguments that computes one run ----------------------------------


def training(lib: Library, work: cases.Training) -> Callable[[], float]:
    """A training step; returns its loss."""
    net = work.net
    model, parameters = lib.network(net.layers, net.shape, weights(net))
    loss_fn, optimizer = lib.loss(net.loss), lib.optimizer(net.optimizer, parameters, net.options)
    examples = []
    for seed in range(8):
        x = normal(seed, net.batch, *net.shape)
        target = labels(seed, net.batch) if net.loss == "cross_entropy" else x
        x, target = lib.items(x), lib.items(target)
        examples.append((settled(lib, x) if net.inner else lib.tensor(x), lib.tensor(target)))
    batches = itertools.cycle(examples)

    def learn(x, target):
        loss = loss_fn(model(lib.leaf(x) if net.inner else x), target)
        return lib.learn(loss, optimizer)

    learn = lib.captured(learn)
    return lambda: lib.number(learn(*next(batches)))


def inference(lib: Library, work: cases.Inference) -> Callable[[], Tensor]:
    """A forward pass without a graph; returns the output."""
    net = work.net
    model, _ = lib.network(net.layers, net.shape, weights(net))
    x = lib.tensor(normal(0, net.batch, *net.shape))

    def forward():
        with lib.no_grad():
            return model(x)

    return forward


def single(lib: Library, work: cases.LayerWork) -> Callable[[], Any]:
    """One layer; returns its output or gradients.

    The operands are outputs of another layer, so each library reads them in its own memory order.
    """
    net = work.net
    (layer,), shape, arrays = net.layers, net.shape, weights(net)
    x, out_grad = normal(100, net.batch, *shape), normal(101, net.batch, *layer.output(shape))
    if isinstance(lib, Loops):
        weight, bias = arrays
        return lambda: lib.convolve(x, weight, bias, layer.padding, out_grad, work.part)
    if layer.kind == "cross_entropy":
        loss_fn, target, parameters = lib.loss(layer.kind), lib.tensor(labels(0, net.batch)), []
        x, out_grad, model = lib.tensor(x), lib.tensor(np.float32(1)), lambda x: loss_fn(x, target)
    else:
        model, parameters = lib.network(net.layers, shape, arrays)
        x = settled(lib, x) if net.inner else lib.tensor(x)
        out_grad = lib.tensor(out_grad) if layer.kind == "linear" else settled(lib, out_grad)

    def forward():
        with lib.no_grad():
            return model(x)

    if work.part == "forward":
        return forward
    if work.part != "weight gradient":
        x = lib.leaf(x)
    leaves = {"weight gradient": parameters[:1], "input gradient": [x]}.get(work.part, [x, *parameters])
    for parameter in parameters:
        parameter.requires_grad = any(parameter is leaf for leaf in leaves)
    y = model(x)
    return lambda: lib.gradients(y, leaves, out_grad, True)


def settled(lib: Library, array: np.ndarray) -> Tensor:
    """The array as a tensor in the memory order of this library's convolution outputs."""
    channels, rank = array.shape[1], array.ndim - 2
    layers = (cases.conv(channels, 1), *[cases.flatten] * (not rank))
    shape = array.shape[1:] if rank else (channels, 1)
    identity = np.eye(channels, dtype="float32").reshape(channels, channels, *[1] * max(rank, 1))
    model, _ = lib.network(layers, shape, [identity, np.zeros(channels, "float32")])
    with lib.no_grad():
        return model(lib.tensor(array.reshape(len(array), *shape)))


def update(lib: Library, work: cases.Update) -> Callable[[], list[Tensor]]:
    """A step of Adam with given gradients; returns the parameters."""
    parameters = [lib.leaf(lib.tensor(normal(i, work.side, work.side))) for i in range(16)]
    for i, parameter in enumerate(parameters):
        parameter.grad = lib.tensor(normal(16 + i, work.side, work.side))
    optimizer = lib.optimizer("Adam", parameters, {"lr": 0.001})

    def step():
        optimizer.step()
        return parameters

    return step


def matrices(lib: Library, work: cases.Product) -> Callable[[], Tensor]:
    """A matrix product; returns it."""
    return lib.product(normal(0, work.side, work.side), normal(1, work.side, work.side))


def chain(lib: Library, work: cases.Chain) -> Callable[[], Any]:
    """relu(x · y + y) - y, repeated: values and gradients stay near 1. Returns the value or the gradient of x."""
    x, y = lib.leaf(lib.tensor(abs(normal(0, 8)))), lib.tensor(1 + normal(1, 8) / 1000)
    ones = lib.tensor(np.ones(8, "float32"))

    def forward():
        z = x
        for _ in range(work.per // 4):
            z = lib.relu(z * y + y) - y
        return z

    def backward():
        return lib.gradients(forward(), [x], ones, False)

    return forward if work.part == "forward" else backward


def loading(lib: Library, work: cases.Loading) -> Callable[[], list[Any]]:
    """An epoch of a loader; returns its last batch, images and labels."""
    count = work.batch * work.per
    images = np.random.default_rng(0).integers(0, 256, (count, *work.shape), "uint8")
    return lib.epochs(images, labels(0, count), work)


BUILD: dict[type, Callable[[Library, Any], Callable[[], Any]]] = {
    cases.Training: training,
    cases.Inference: inference,
    cases.LayerWork: single,
    cases.Update: update,
    cases.Product: matrices,
    cases.Chain: chain,
    cases.Loading: loading,
}


# ---- answers ---------------------------------------------------------------------------------------------------------


def fingerprint(lib: Library, result: Any) -> tuple[float, float]:
    """Two sums over a result, by which libraries are compared."""
    tensors = result if isinstance(result, (list, tuple)) else [result]
    arrays = [x if isinstance(x, (float, np.ndarray)) else lib.array(x) for x in tensors]
    values = np.concatenate([np.ravel(array).astype("float64") for array in arrays])
    return float(np.abs(values).sum()), float(values @ np.cos(np.arange(values.size)))


def seconds(lib: Library, run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The time of one run; on a GPU, of one in a burst of runs that are waited for together."""
    start = clock()
    for _ in range(lib.burst):
        run()
    lib.wait()
    return (clock() - start) / lib.burst


class Row:
    """A row of work: its runs, and how much of their time the library has spent in exchanges between processes."""

    def __init__(self, lib: Library, case: str, row: str, is_small: bool, clock: Callable[[], float]) -> None:
        work = cases.CASES[case][row]
        self.run = BUILD[type(work)](lib, work.small() if is_small else work)
        self.lib, self.clock, self.spent, self.exchanged = lib, clock, 0.0, 0.0

    def fingerprints(self, count: int) -> list[tuple[float, float]]:
        return [fingerprint(self.lib, self.lib.whole(self.run())) for _ in range(count)]

    def median_time(self, first: int, count: int) -> float:
        """The median of `count` runs after `first` others."""
        for _ in range(first):
            self.run()
        self.lib.wait()
        before = self.lib.exchanged
        times = [seconds(self.lib, self.run, self.clock) for _ in range(count)]
        self.spent += sum(times)
        self.exchanged += self.lib.exchanged - before
        return median(times)


def peak() -> int:
    """Peak resident memory of this process in bytes (the system counts bytes on macOS, KiB elsewhere).

    On Linux a process inherits the peak of its parent, so the measuring process stays small: it imports no library.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(library: str, clock: str, size: str | None = None, ranks: int = 1) -> None:
    """Answer requests until stdin ends."""
    try:
        adapter = adapter_of(library)
    except ModuleNotFoundError as error:
        if library.startswith("needle"):
            raise
        print(f"{library}: {error}", file=sys.stderr)
        print("null", flush=True)
        return
    adapter.launch(serve, ranks, (library, getattr(time, clock), size is not None))


def serve(library: str, clock: Callable[[], float], is_small: bool) -> None:
    """Answer requests on one rank until rank 0's stdin ends."""
    lib = adapter_of(library)()
    answer(lib, lib.about())
    name: Any = None
    row: Any = None
    with lib.computing():
        while line := lib.told(sys.stdin.readline() if lib.rank == 0 else ""):
            request = json.loads(line)
            if request == "memory":
                answer(lib, round(lib.total(peak())))
            elif request == "exchanges":
                answer(lib, row.exchanged / row.spent)
            else:
                *wanted, first, count = request
                if wanted != name:
                    row = None  # frees the tensors of the previous row
                    name, row = wanted, Row(lib, *wanted, is_small, clock)
                answer(lib, row.median_time(first, count) if count else row.fingerprints(first))


def answer(lib: Library, value: Any) -> None:
    """Answer a request, which one rank does."""
    if lib.rank == 0:
        print(json.dumps(value), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m apps.benchmark.worker", description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=ADAPTERS)
    parser.add_argument("clock", choices=("perf_counter", "process_time"))
    parser.add_argument("size", choices=("small",), nargs="?")
    parser.add_argument("--ranks", type=int, default=1)
    main(**vars(parser.parse_args()))
