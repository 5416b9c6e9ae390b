"""The work of the benchmark, done by one library in a process of its own.

    python apps/benchmark_rival.py needle perf_counter      # library, clock; at last "small" for tiny sizes

benchmark.py starts this script and talks to it in lines of JSON. The first line on stdout says which library is at work
(null: it is not installed). Each request [case, row, first, count] on stdin then gets one answer: after `first` runs
that do not count the median time in seconds of `count` that do, or with count 0 the fingerprints of the `first` runs.
The request null asks for the largest memory, in bytes, that this process has had.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from statistics import median

import numpy as np

if __package__:  # imported as apps.benchmark_rival; otherwise the folder apps is on sys.path
    from apps import benchmark_cases as cases
    from apps.benchmark_libraries import LIBRARIES, Loops
else:
    import benchmark_cases as cases
    from benchmark_libraries import LIBRARIES, Loops


# ---- data: the same for every library --------------------------------------------------------------------------------


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def weights(net):
    """The initial parameters of a network, in its order."""
    found = [entry for layer, shape in cases.steps(net.layers, net.shape) for entry in layer.parameters(shape)]
    return [mean + normal(i, *shape) * np.float32(scale) for i, (shape, mean, scale) in enumerate(found)]


def labels(seed, count):
    return np.random.default_rng(seed).integers(0, 10, count)


# ---- work: functions without arguments that return their result ------------------------------------------------------


def training(lib, work):
    net = work.net
    model, parameters = lib.network(net.layers, net.shape, weights(net))
    loss_fn, optimizer = lib.loss(net.loss), lib.optimizer(net.optimizer, parameters, net.options)
    batches = []
    for seed in range(8):
        x = normal(seed, net.batch, *net.shape)
        target = labels(seed, net.batch) if net.loss == "cross_entropy" else x
        batches.append((settled(lib, x) if net.inner else lib.tensor(x), lib.tensor(target)))
    batches = itertools.cycle(batches)

    def step():
        x, target = next(batches)
        loss = loss_fn(model(lib.leaf(x) if net.inner else x), target)
        lib.learn(loss, optimizer)
        return lib.number(loss)

    return step


def inference(lib, work):
    net = work.net
    model, _ = lib.network(net.layers, net.shape, weights(net))
    x = lib.tensor(normal(0, net.batch, *net.shape))

    def forward():
        with lib.no_grad():
            return model(x)

    return forward


def single(lib, work):
    """One layer. Its operands come out of layers before, so that each library meets them in its own memory order."""
    net = work.net
    (layer,), shape, arrays = net.layers, net.shape, weights(net)
    x, out_grad = normal(100, net.batch, *shape), normal(101, net.batch, *layer.output(shape))
    if isinstance(lib, Loops):
        return lambda: lib.convolve(x, *arrays, layer.padding, out_grad, work.wanted)
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

    if work.wanted == "forward":
        return forward
    if work.wanted != "weight gradient":
        x = lib.leaf(x)
    leaves = {"weight gradient": parameters[:1], "input gradient": [x]}.get(work.wanted, [x, *parameters])
    for parameter in parameters:
        parameter.requires_grad = any(parameter is leaf for leaf in leaves)
    y = model(x)
    return lambda: lib.gradients(y, leaves, out_grad, True)


def settled(lib, array):
    """The array as a tensor in the memory order that a convolution of this library leaves."""
    channels, rank = array.shape[1], array.ndim - 2
    layers = (cases.conv(channels, 1), *[cases.flatten] * (not rank))
    shape = array.shape[1:] if rank else (channels, 1)
    identity = np.eye(channels, dtype="float32").reshape(channels, channels, *[1] * max(rank, 1))
    model, _ = lib.network(layers, shape, [identity, np.zeros(channels, "float32")])
    with lib.no_grad():
        return model(lib.tensor(array.reshape(len(array), *shape)))


def update(lib, work):
    """A step of Adam, whose gradients are there."""
    parameters = [lib.leaf(lib.tensor(normal(i, work.side, work.side))) for i in range(16)]
    for i, parameter in enumerate(parameters):
        parameter.grad = lib.tensor(normal(16 + i, work.side, work.side))
    optimizer = lib.optimizer("Adam", parameters, {"lr": 0.001})

    def step():
        optimizer.step()
        return parameters

    return step


def matrices(lib, work):
    return lib.product(normal(0, work.side, work.side), normal(1, work.side, work.side))


def chain(lib, work):
    """relu(x · y + y) - y again and again: values and gradients stay near 1."""
    x, y = lib.leaf(lib.tensor(abs(normal(0, 8)))), lib.tensor(1 + normal(1, 8) / 1000)
    ones = lib.tensor(np.ones(8, "float32"))

    def forward():
        z = x
        for _ in range(work.per // 4):
            z = lib.relu(z * y + y) - y
        return z

    def backward():
        return lib.gradients(forward(), [x], ones, False)

    return forward if work.wanted == "forward" else backward


BUILD = {
    cases.Training: training,
    cases.Inference: inference,
    cases.LayerWork: single,
    cases.Update: update,
    cases.Product: matrices,
    cases.Chain: chain,
}


# ---- answers ---------------------------------------------------------------------------------------------------------


def fingerprint(lib, result):
    """Two sums of a result, by which it is compared between libraries."""
    tensors = result if isinstance(result, (list, tuple)) else [result]
    arrays = [x if isinstance(x, (float, np.ndarray)) else lib.array(x) for x in tensors]
    values = np.concatenate([np.ravel(array).astype("float64") for array in arrays])
    return float(np.abs(values).sum()), float(values @ np.cos(np.arange(values.size)))


def seconds(run, clock):
    """The time that one run takes."""
    start = clock()
    run()
    return clock() - start


def answer(lib, run, clock, first, count):
    if count:
        return median([seconds(run, clock) for _ in range(first + count)][first:])
    return [fingerprint(lib, run()) for _ in range(first)]


def peak():
    """The largest resident memory of this process so far, in bytes (macOS counts bytes, others KiB).

    Linux begins with that of the process that started it: benchmark.py stays small, it imports no library.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(library, clock, size=None):
    """Answer requests until stdin ends."""
    try:
        lib = LIBRARIES[library]()
    except ModuleNotFoundError as error:
        if library == "needle":
            raise
        print(f"{library}: {error}", file=sys.stderr)
        print("null", flush=True)
        return
    print(json.dumps(lib.about()), flush=True)
    at, run = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            print(peak(), flush=True)
            continue
        case, row, first, count = request
        if at != (case, row):
            run = None  # frees what the row before held
            work = cases.CASES[case][row]
            at, run = (case, row), BUILD[type(work)](lib, work.small() if size else work)
        print(json.dumps(answer(lib, run, getattr(time, clock), first, count)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
