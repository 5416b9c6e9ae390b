"""How many workers a run should have: found by training copies of it for a moment, before it begins."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from needle.backend import get_rng_state, set_rng_state
from needle.backend.cores import usable_cores
from needle.data import DataLoader, Dataset, NDArrayDataset
from needle.data.workers import is_plain
from needle.distributed.processes import WorkerDied
from needle.metrics import Metric
from needle.nn import Module
from needle.optim import Optimizer
from needle.training.callbacks import Callbacks, Reader
from needle.training.evaluation import Forward, LossFunction, apply_model
from needle.training.figures import Figures
from needle.training.loop import Run
from needle.training.schedule import Schedule
from needle.training.state import TrainingState
from needle.training.stepper import Stepper
from needle.training.workers import check_workers, train_by_workers

__all__ = ["WorkerChoice", "choose_workers"]

LEAST_GAIN = 0.95  # workers are chosen if a step takes less than this part of its time by one
EPOCH_SECONDS, EPOCH_BATCHES = 0.25, 50  # how long a measured epoch should take, and most batches of it
EPOCHS = 5  # the first one warms up, the fastest of the others counts; of long steps 2


class WorkerChoice(NamedTuple):
    """A number of workers, why, and what was measured: seconds of a step by one worker, and by one for each core."""

    workers: int
    reason: str
    alone: float | None = None
    shared: float | None = None


def choose_workers(
    model: Module,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    train_loader: Iterable[Any],
    *,
    metrics: Mapping[str, Metric] | None = None,
    forward: Forward = apply_model,
) -> WorkerChoice:
    """The number of workers with which a step of `fit` is faster: 1, or one for each core that the process may use.

    Trains copies on one batch of `train_loader`: for a second or two by one worker, on all threads, and by several.
    Their learning rate is 0: without the schedule and the clipping of the run they might diverge. Model, optimizer,
    random streams and loader stay as they are. Where workers are not possible (one core, a GPU, something that pickle
    cannot copy, a loader that can be read only once, too little memory) the choice is 1, and the reason says so.
    """
    cores = usable_cores()
    if cores == 1:
        return WorkerChoice(1, "the process may use 1 core")
    parts = {"model": model, "loss_fn": loss_fn, "optimizer": optimizer, "metrics": metrics, "forward": forward}
    if isinstance(train_loader, Iterator):
        return WorkerChoice(1, "the loader can be read only once")
    try:
        check_workers(cores, **parts, train_loader=train_loader)
    except (TypeError, ValueError) as error:
        return WorkerChoice(1, str(error))
    streams = get_rng_state(), random.getstate()
    try:
        loader = _Repeated(_one_batch(_copied(train_loader)))
        alone = _seconds(1, loader, parts, epochs=2)
        loader.batches = max(1, min(EPOCH_BATCHES, int(EPOCH_SECONDS / alone)))
        epochs = EPOCHS if alone < EPOCH_SECONDS else 2
        alone, shared = (_seconds(workers, loader, parts, epochs) for workers in (1, cores))
    except WorkerDied as error:
        return WorkerChoice(1, str(error))
    finally:
        set_rng_state(streams[0])
        random.setstate(streams[1])
    times = f"{1e3 * alone:.3g} ms by 1 worker and {1e3 * shared:.3g} ms by {cores}"
    return WorkerChoice(cores if shared < LEAST_GAIN * alone else 1, f"a step takes {times}", alone, shared)


class _Repeated:
    """A loader that yields one batch of another several times."""

    def __init__(self, loader: Iterable[Any], batches: int = 1) -> None:
        self.loader, self.batches = loader, batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.batches):
            yield from self.loader


def _copied(value: Any) -> Any:
    """A copy whose arrays use the same memory: what it draws and where it is are its own."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=buffers)


def _one_batch(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader of one batch of another loader."""
    if is_plain(loader) and isinstance(dataset := loader.dataset, Dataset):
        fields = dataset.take(range(min(loader.batch_size, len(dataset))))
        return DataLoader(NDArrayDataset(*fields), len(fields[0]), device=loader.device)
    return [next(iter(loader))]


def _seconds(workers: int, loader: Any, parts: Mapping[str, Any], epochs: int) -> float:
    """The seconds of a step of copies of the parts."""
    part: dict[str, Any] = pickle.loads(pickle.dumps(parts))
    for group in part["optimizer"].param_groups:
        group["lr"] = 0.0
    figures, stepper = Figures(part["metrics"]), Stepper(part["optimizer"])
    schedule, hooks = Schedule(part["optimizer"], None, None), Callbacks(())
    state = TrainingState(model=part["model"], optimizer=part["optimizer"])
    state.epochs, state.workers = epochs, workers
    part["model"].train()
    run = Run(
        state, part["model"], part["loss_fn"], part["optimizer"], Reader(loader), None, None, part["forward"], schedule,
        None, figures, stepper, hooks,
    )  # fmt: skip
    train_by_workers(run)
    fastest: float = min(row["seconds"] for row in state.history[1:])
    batches: int = loader.batches
    return fastest / batches
