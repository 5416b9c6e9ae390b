"""Predict what training gains from several machines, by the latency and the bandwidth between them: run by mpiexec.

    mpiexec -n 2 -hosts a,b python -m apps.benchmark.scaling
    mpiexec -n 4 -hosts a,b,c,d python -m apps.benchmark.scaling --nets vgg --batches 32 256 --machines 2 4 8 16
    mpiexec -n 2 python -m apps.benchmark.scaling --link 1 50 --link 25 15      # also for links that are not here

With one rank on each machine it measures the latency and the bandwidth of exchanges, and what one rank computes in a
step for its part of the batch on each number of machines, in steps whose exchanges do nothing. All ranks do so at
once, and the slowest counts. From that and the exchanges of a step it predicts the step (model.py). With as many
machines as there are ranks it also measures the step. All steps take turns, A B A B, and ratios are those of a turn.
"""

from __future__ import annotations

import sys

if not __package__:
    print("scaling: it must run as a module, by python -m apps.benchmark.scaling", file=sys.stderr)
    raise SystemExit(2)

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from needle import distributed
from needle.distributed import Communicator

from ..errors import user_errors
from . import report, worker
from .cases import NETS, Net, Training
from .libraries.needle import PlannedNeedle
from .libraries.needle_ranks import NeedleWorkers, Watched
from .model import Call, Link, Step, sent_bytes, step_seconds

FEW, MANY = 1 << 18, 1 << 21  # bytes of the sums whose times give the bandwidth
IN_A_ROW = 10  # sums of next to nothing that are timed together
SECONDS = 0.5  # that a measurement takes, about
FEWEST, MOST = 5, 200  # runs of it
BEFORE_REPLAYS = 4  # steps until one that is captured is replayed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and predict; rank 0 prints."""
    options = parse(arguments)
    with user_errors("scaling"), distributed.join() as communicator:
        if communicator.size == 1:
            raise ValueError("scaling: ranks must be at least two, as mpiexec -n 2 starts them, but there is one")
        links = named(measured_link(communicator), options.link)
        works = [(name, batch) for name in options.nets for batch in options.batches or [NETS[name].batch]]
        counts, library = options.machines, CapturedWorkers if options.captured else NeedleWorkers
        studies = {f"{name}, {batch}": Study(communicator, name, batch, counts, library) for name, batch in works}
        if communicator.rank == 0:
            print(text(communicator.size, links, studies, options.machines))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m apps.benchmark.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["lenet", "cifar", "vgg", "resnet9"], metavar="NET")
    parser.add_argument("--batches", type=int, nargs="+", help="items of a batch (default: those of the benchmark)")
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 4, 8, 16], help="(default: 2 4 8 16)")
    parser.add_argument(
        "--link", type=float, nargs=2, action="append", default=[], metavar=("GBITS", "MICROSECONDS"),
        help="predict also for links of so many Gbit/s where an exchange of next to nothing takes so long",
    )  # fmt: skip
    parser.add_argument("--captured", action="store_true", help="steps of ndl.capture")
    options = parser.parse_args(arguments)
    if min(options.machines) < 1 or min(options.batches or [1]) < 1:
        parser.error("--machines and --batches must be at least 1")
    if not all(0 < rate < float("inf") and 0 <= delay < float("inf") for rate, delay in options.link):
        parser.error("--link must be a finite rate greater than 0 and a finite time")
    return options


def named(here: Link, others: Sequence[Sequence[float]]) -> dict[str, Link]:
    """The link here, and those of so many Gbit/s and microseconds, with their names."""
    links = {f"the link here, {8e-9 / here.per_byte:.3g} Gbit/s, {here.latency * 1e6:.0f} µs": here}
    for rate, microseconds in others:
        links[f"{rate:g} Gbit/s, {microseconds:g} µs"] = Link(microseconds * 1e-6, 8e-9 / rate)
    return links


# ---- measuring -------------------------------------------------------------------------------------------------------


def slowest(communicator: Communicator, seconds: Sequence[float]) -> list[float]:
    """The time of the slowest rank in each run."""
    return np.max(communicator.all_gather(np.array([seconds])), (0, 1)).tolist()


def turns(communicator: Communicator, *runs: Callable[[], Any]) -> list[list[float]]:
    """The times of some runs in turns, each of the slowest rank, which all begin at once."""
    times: list[list[float]] = [[] for _ in runs]
    count, start = MOST, 0.0
    for i in range(MOST):
        if i == 1:  # the first round warms up; the same number of rounds on all ranks
            spent = slowest(communicator, [time.perf_counter() - start])[0]
            count = min(MOST, max(FEWEST, int(SECONDS * len(runs) / spent)))
        if i > count:
            break
        start = time.perf_counter()
        for run, entry in zip(runs, times, strict=True):
            communicator.barrier()
            before = time.perf_counter()
            run()
            entry.append(time.perf_counter() - before)
    return [slowest(communicator, entry[1:]) for entry in times]


def measured_link(communicator: Communicator) -> Link:
    """The latency and the bandwidth of exchanges between all ranks."""

    def sums(size: int, count: int) -> Callable[[], None]:
        array = np.zeros(size // 4, "float32")

        def run() -> None:
            for _ in range(count):
                communicator.all_reduce(array)

        return run

    least, few, many = (median(times) for times in turns(communicator, sums(4, IN_A_ROW), sums(FEW, 1), sums(MANY, 1)))
    more = sent_bytes(MANY, communicator.size) - sent_bytes(FEW, communicator.size)
    return Link(least / IN_A_ROW, (many - few) / more)


class Recorded(Watched):
    """A communicator that notes the sums of a step; what is gathered goes whole to all, as a small sum."""

    def __init__(self, communicator: Communicator) -> None:
        super().__init__(communicator)
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self.start, self.needed = time.perf_counter(), 0.0
        self.calls: list[Call] = []

    def end(self) -> Step:
        """The step that ends."""
        spent = self.now()
        return Step([replace(call, at=call.at / spent) for call in self.calls], self.needed / spent)

    def now(self) -> float:
        return time.perf_counter() - self.start

    def all_reduce(self, array: np.ndarray, wire: str | None = None) -> None:
        self.calls.append(Call(array.nbytes, True, self.now()))
        super().all_reduce(array, wire)

    def all_gather(self, array: np.ndarray) -> list[np.ndarray]:
        self.calls.append(Call(array.nbytes, True, self.now()))
        return super().all_gather(array)

    def start_all_reduce(self, array: np.ndarray, wire: str | None = None) -> Any:
        self.calls.append(Call(array.nbytes, False, self.now()))
        return RecordedRequest(self, super().start_all_reduce(array, wire))


class RecordedRequest:
    """A request whose first wait is noted."""

    def __init__(self, recorded: Recorded, request: Any) -> None:
        self.recorded, self.request = recorded, request

    def wait(self) -> None:
        self.recorded.needed = self.recorded.needed or self.recorded.now()
        self.request.wait()


class Unheard(Communicator):
    """The first of `size` ranks, of which the others have nothing to add, and the same statistics."""

    def __init__(self, size: int) -> None:
        self.rank, self.size = 0, size

    def all_reduce(self, array: np.ndarray, wire: str | None = None) -> None:
        pass

    def all_gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array.copy() for _ in range(self.size)]

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        pass


class CapturedWorkers(NeedleWorkers):
    """Ranks whose training steps are captured."""

    captured = PlannedNeedle.captured


class Study:
    """What is measured of a network and a batch.

    For each number of machines, `computed` holds the times of what one rank computes and `steps` the sums of a step;
    `measured` are the times of steps of all ranks here. All are measured in turns.
    """

    def __init__(
        self, communicator: Communicator, name: str, batch: int, machines: Sequence[int],
        library: type[NeedleWorkers] = NeedleWorkers,
    ) -> None:  # fmt: skip
        net = replace(NETS[name], batch=batch)
        size, self.batch = communicator.size, batch
        if batch < size:
            raise ValueError(f"scaling: a batch must have an item for each of the {size} ranks, but it has {batch}")
        self.gradient_bytes = 4 * sum(array.size for array in worker.weights(net))
        counts = sorted(count for count in {1, size, *machines} if count <= batch)
        recorded = [Recorded(Unheard(count)) for count in counts]
        runs = [step_of(net, one, library()) for one in (*recorded, Watched(communicator))]
        for run in runs * BEFORE_REPLAYS:
            run()
        *computed, self.measured = turns(communicator, *runs)
        self.computed = dict(zip(counts, computed, strict=True))
        self.steps: dict[int, Step] = {}
        for count, one, run in zip(counts, recorded, runs, strict=False):
            one.begin()
            run()
            self.steps[count] = one.end()

    def predicted(self, link: Link, machines: int) -> list[float]:
        """The times of steps on so many machines."""
        return [step_seconds(link, self.steps[machines], machines, seconds) for seconds in self.computed[machines]]


def step_of(net: Net, communicator: Watched, lib: NeedleWorkers) -> Callable[[], None]:
    """A training step of a rank."""
    lib.watched = communicator
    run = worker.training(lib, Training(net))

    def step() -> None:
        with lib.computing():
            run()

    return step


# ---- tables ----------------------------------------------------------------------------------------------------------


def text(size: int, links: dict[str, Link], studies: dict[str, Study], machines: Sequence[int]) -> str:
    """The tables: what is measured beside what is predicted, then predictions for each link, of which one is here."""
    head = ["net, batch", "gradients", "sums, waited for", "step", "gain", "exchanges", "predicted / measured"]
    lines, here = [head], next(iter(links.values()))
    for label, study in studies.items():
        sums = f"{len(study.steps[size].calls)}, {sum(call.waits for call in study.steps[size].calls)}"
        ratio = report.spread(study.predicted(here, size), study.measured)
        spent = f"{1 - report.spread(study.computed[size], study.measured)['median']:.0%}"
        cells = [f"{study.gradient_bytes / 1e6:.2f} MB", sums, report.duration(median(study.measured))]
        cells += [report.ranged(report.spread(study.computed[1], study.measured)), spent]
        lines.append([label, *cells, report.ranged(ratio)])
    parts = [f"{size} machines, measured\n\n{report.table(lines)}"]
    for name, link in links.items():
        lines = [["net, batch", "one machine", *map(str, machines)]]
        for label, study in studies.items():
            alone = median(study.computed[1])
            lines.append([label, report.duration(alone), *(cell(study, link, count) for count in machines)])
        parts.append(f"Predicted with {name}: step, gain, exchanges\n\n{report.table(lines)}")
    return "\n\n".join(parts)


def cell(study: Study, link: Link, machines: int) -> str:
    """The step on so many machines, its gain over one, and the share of exchanges."""
    if machines not in study.computed:
        return report.NONE
    seconds = study.predicted(link, machines)
    gain, computed = (report.spread(study.computed[count], seconds)["median"] for count in (1, machines))
    return f"{report.duration(median(seconds))}, {gain:.2f}, {1 - computed:.0%}"


if __name__ == "__main__":
    main()
