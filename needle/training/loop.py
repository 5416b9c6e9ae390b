"""The training loop, and all that it uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend.communicator import CallsDiffer, current_communicator
from needle.metrics import Metric
from needle.nn import Module
from needle.optim import ExponentialMovingAverage, Optimizer
from needle.training.callbacks import Callbacks, Reader
from needle.training.evaluation import Forward, LossFunction, evaluate_by_workers, start_pass
from needle.training.exchanges import begin_alike, obey, share_place, whole_batch
from needle.training.figures import Figures, items_in
from needle.training.schedule import Schedule
from needle.training.state import Row, TrainingState, averaged
from needle.training.stepper import Stepper
from needle.training.stopping import require_finite


@dataclass
class Run:
    """All that the loop uses. Workers have copies of it, rank 0 the caller's own objects; ranks of MPI make theirs."""

    state: TrainingState
    model: Module
    loss_fn: LossFunction
    optimizer: Optimizer
    reader: Reader
    validation: Iterable[Any] | None
    metrics: Mapping[str, Metric] | None
    forward: Forward
    schedule: Schedule
    ema: ExponentialMovingAverage | None
    figures: Figures
    stepper: Stepper
    hooks: Callbacks
    save_every: int | None = None  # batches, after which rank 0 saves the run

    @property
    def is_over(self) -> bool:
        """Whether all epochs are complete, or somebody has stopped the run."""
        return self.state.epoch >= self.state.epochs or self.state.stopped is not None

    def finish_step(self) -> None:
        """What follows a step of the optimizer."""
        self.schedule.after_step()
        if self.ema is not None:
            self.ema.update()


def train(run: Run) -> None:
    """The loop, which every rank runs: on its items of each batch, with the figures of the whole."""
    try:
        _train(run)
    except CallsDiffer as error:
        done, epoch = run.state.batch, run.state.epoch + 1
        error.add_note(f"This rank had done {done} batches of epoch {epoch}; has another one more of them, or fewer?")
        raise


def _train(run: Run) -> None:
    state, figures, stepper, hooks = run.state, run.figures, run.stepper, run.hooks
    is_alone = current_communicator().size == 1
    while not run.is_over:
        if not state.batch:
            figures.reset()
            start_pass(run.forward, run.reader.loader)
        hooks("on_epoch_start", state)
        begin_alike(run.model, run.optimizer)
        if not (is_alone or state.batch):
            start_pass(run.reader.loader)  # which callbacks may have read just now
            share_place(run.reader.loader)
        clock = time.perf_counter()
        for batch in run.reader.batches(state.batch):
            outputs, targets = run.forward(run.model, batch)
            loss = check.instance("fit", "loss", run.loss_fn(outputs, targets), Tensor)
            if is_alone:
                require_finite_now(loss, state)
            loss = stepper.backward(loss, items_in(targets))
            if not is_alone:  # that of the whole batch: all ranks raise the same error
                require_finite_now(loss, state)
            figures.update(loss, *whole_batch(outputs, targets, bool(figures.metrics)))
            if stepper.step():
                run.finish_step()
            state.batch += 1
            now = time.perf_counter()
            state.seconds, clock = state.seconds + now - clock, now
            if run.save_every and state.batch % run.save_every == 0:
                stepper.gather()
            hooks("on_step", state)
            obey(state, run.optimizer)
            if state.stopped is not None:
                stepper.gather()
                break
        else:
            if stepper.flush():
                run.finish_step()
            row = training_row(state, figures, run.optimizer)
            if run.validation is not None:
                with averaged(state):
                    held_out = evaluate_by_workers(run.model, run.loss_fn, run.validation, run.metrics, run.forward)
                row |= numbers("val_", held_out)
            state.history.append(row)
            state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
            run.schedule.after_epoch(state)
            hooks("on_epoch_end", state)
            obey(state, run.optimizer)


def require_finite_now(loss: Tensor, state: TrainingState) -> None:
    """Require the loss of a batch to be finite, where a look at it does not wait for queued work."""
    if not loss.device.is_async:
        require_finite(loss.item(), state.epoch + 1, state.batch + 1)


def training_row(state: TrainingState, figures: Figures, optimizer: Optimizer) -> Row:
    """The row of an epoch whose batches are all done, without validation."""
    if not figures.items:
        raise ValueError("fit: train_loader must yield at least one batch, but yielded none")
    train = figures.compute()
    require_finite(train["loss"], state.epoch + 1)
    loss = {"loss": train.pop("loss")}
    speed = {"seconds": state.seconds, "items_per_second": figures.items / state.seconds}
    return {"epoch": state.epoch + 1, **loss, **numbers("train_", train), "lr": optimizer.lr, **speed}


def numbers(prefix: str, figures: Mapping[str, Any]) -> Row:
    """Those figures that are numbers."""
    return {f"{prefix}{name}": float(x) for name, x in figures.items() if getattr(x, "ndim", 0) == 0}
