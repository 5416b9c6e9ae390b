"""Launches of one training step of each network, by stage and op; --kernels lists them, --json is for programs.

python -m tests.gpu.null.steps [--kernels | --json] [network …]

The process computes nothing: launches are counted and do nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import needle as ndl
from apps.benchmark import cases
from apps.benchmark.libraries.needle import Needle
from tests.gpu.null import device
from tests.gpu.null.counts import LAUNCHES, Counts, counting

CNN = cases.Net(
    (3, 32, 32), 128,
    (*cases.conv_norm(32, 3), cases.pool, *cases.conv_norm(64, 3), cases.pool, *cases.conv_norm(64, 3), cases.average,
     cases.linear(10)),
)  # fmt: skip
NETWORKS = {
    name: cases.NETS.get(name, CNN) for name in ("lenet", "resnet9", "cnn", "vgg", "conv1d", "autoencoder", "depthwise")
}


class Training:
    """A network with its optimizer and one batch, all on one device."""

    def __init__(self, net: cases.Net, place: ndl.Device) -> None:
        rng, library = np.random.default_rng(0), Needle()
        with default_device(place):
            arrays = [
                rng.normal(mean, deviation, shape).astype("float32")
                for layer, example in cases.steps(net.layers, net.shape)
                for shape, mean, deviation in layer.parameters(example)
            ]
            self.model, parameters = library.network(net.layers, net.shape, arrays)
            self.criterion = library.loss(net.loss)
            self.optimizer = library.optimizer(net.optimizer, parameters, net.options)
            images = rng.normal(size=(net.batch, *net.shape)).astype("float32")
            self.x = ndl.Tensor(images, requires_grad=net.inner)
            labels = rng.integers(0, 10, net.batch)
            self.target = self.x if net.loss != "cross_entropy" else ndl.Tensor(labels, requires_grad=False)

    def forward(self) -> None:
        self.loss = self.criterion(self.model(self.x), self.target)

    def backward(self) -> None:
        self.optimizer.reset_grad()
        self.loss.backward(create_graph=False)

    def update(self) -> None:
        self.optimizer.step()

    def step(self) -> ndl.Tensor:
        self.forward()
        self.backward()
        self.update()
        return self.loss


@contextmanager
def default_device(chosen: ndl.Device) -> Iterator[None]:
    before = ndl.default_device()
    ndl.set_default_device(chosen)
    try:
        yield
    finally:
        ndl.set_default_device(before)


def counted(name: str, warm: int = 2) -> dict[str, Counts]:
    """The requests of each stage of a step of that network, after some steps that are not counted."""
    training = Training(NETWORKS[name], ndl.cuda())
    for _ in range(warm):
        training.step()
    result = {}
    for stage in ("forward", "backward", "update"):
        with counting() as counts:
            getattr(training, stage)()
        result[stage] = counts
    return result


def host_time(name: str, repeats: int = 20) -> float:
    """The shortest time of this thread for a step, in milliseconds: no device works meanwhile."""
    training = Training(NETWORKS[name], ndl.cuda())
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        training.step()
        times.append(time.thread_time() - start)
    return 1e3 * min(times)


def report(name: str, kernels: bool) -> Iterator[str]:
    stages = counted(name)
    total = {key: sum(getattr(counts, key) for counts in stages.values()) for key in ("launches", "uploads", "waits")}
    parts = " + ".join(f"{stage} {counts.launches}" for stage, counts in stages.items())
    waits = f"uploads {total['uploads']}, waits {total['waits']}; host {host_time(name):.2f} ms"
    yield f"{name}: {total['launches']} launches = {parts}; {waits}"
    for stage, counts in stages.items():
        yield f"  {stage}: {counts}"
        if kernels:
            yield from (f"    {line}" for line in counts.journal)
            continue
        by_op = {op: sum(found[kind] for kind in LAUNCHES) for op, found in counts.by_op.items()}
        for op, launches in sorted(by_op.items(), key=lambda item: -item[1]):
            if launches:
                found = ", ".join(f"{kind} {number}" for kind, number in counts.by_op[op].items() if number)
                yield f"    {op:28} x{counts.calls[op]:<3} launches {launches:3}: {found}"


def summary(name: str) -> dict[str, dict[str, int]]:
    """By stage, the number of requests of each kind, and of launches."""
    kinds = ("h2d", "d2h", "wait", "malloc")
    return {
        stage: {"launches": counts.launches} | {kind: counts[kind] for kind in kinds}
        for stage, counts in counted(name).items()
    }


def main(arguments: list[str]) -> None:
    device.start(runs=False)
    chosen = [name for name in arguments if not name.startswith("-")] or [*NETWORKS]
    if "--json" in arguments:
        print(json.dumps({name: summary(name) for name in chosen}))  # noqa: T201
        return
    for name in chosen:
        for line in report(name, "--kernels" in arguments):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
