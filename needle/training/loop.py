"""The training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from needle import check
from needle.metrics import Metric
from needle.nn import Module
from needle.optim import ExponentialMovingAverage, Optimizer
from needle.optim.lr_scheduler import LRScheduler
from needle.training.bar import ProgressBar
from needle.training.callbacks import Callbacks, Reader, check_loader
from needle.training.checkpoints import Checkpoints, start_run
from needle.training.figures import Figures, Forward, LossFunction, apply_model, evaluate, items_in, start_pass
from needle.training.schedule import Schedule
from needle.training.state import Row, TrainingState, averaged
from needle.training.stepper import Stepper
from needle.training.stopping import EarlyStopping, require_finite

__all__ = ["fit"]


def fit(
    model: Module,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    train_loader: Iterable[Any],
    *,
    epochs: int,
    validation: Iterable[Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    forward: Forward = apply_model,
    scheduler: LRScheduler | None = None,
    schedule_by: Literal["epoch", "step"] | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    ema: ExponentialMovingAverage | None = None,
    early_stopping: EarlyStopping | int | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    resume: bool | str | os.PathLike[str] = False,
    callbacks: Iterable[Any] = (),
    bar: bool | None = None,
) -> list[Row]:
    """Train `model` until `epochs` passes over `train_loader` are complete; returns a row of figures for each.

    - `forward(model, batch)` returns (outputs, targets) of a batch, `loss_fn(outputs, targets)` its mean loss. By
      default a batch is a pair (inputs, targets). `forward` and loaders may have `reset()`, called before each pass.
    - `validation` is a loader that `evaluate` reads after each epoch, with the averaged weights if there is an `ema`.
    - `metrics` maps names to metrics of `needle.metrics`.
    - `scheduler` steps after each epoch, ReduceLROnPlateau with "val_loss" (without validation "loss"), and OneCycleLR
      after each step of the optimizer; `schedule_by` says otherwise.
    - `accumulate`, `clip_norm` and `clip_value` are those of `Stepper`; `early_stopping` is an `EarlyStopping`, or its
      patience; `checkpoints` is a `Checkpoints`, or its folder.
    - `resume=True` goes on from `last.npz` in that folder if there is one, bit for bit as if training had not been
      stopped, and a path from that file. All arguments must be made as they were.
    - `callbacks` are objects with any of the methods `on_start`, `on_epoch_start`, `on_step`, `on_epoch_end`, `on_end`
      (when all epochs are complete, or training was stopped) and `on_exit` (also after an error). Each takes the run's
      `TrainingState`, and `state.stop(reason)` ends training after the current step.
    - `bar` shows a progress bar: by default if stderr is a terminal and tqdm is installed.

    A row has "epoch", "loss" (the mean over all items, before the step of their batch), "train_NAME" of each metric,
    "val_loss" and "val_NAME", "lr" of the first group, "seconds" of training and "items_per_second". Metrics that
    compute more than one number have no place in it.

    Raises ValueError or TypeError for arguments that do not fit, before the first step, and NonFiniteLoss if a loss is
    NaN or infinite: on the CPU before its step, on a GPU, where each look would wait, at the end of the epoch or before
    a checkpoint is written. Such weights never replace a checkpoint.
    """
    check.instance("fit", "model", model, Module)
    check.integer("fit", "epochs", epochs, least=1)
    check_loader("train_loader", train_loader, epochs)
    if validation is not None:
        check_loader("validation", validation, epochs)
    figures, stepper = Figures(metrics), Stepper(optimizer, accumulate, clip_norm, clip_value)
    reader, schedule = Reader(train_loader), Schedule(optimizer, scheduler, schedule_by)
    stopping = early_stopping
    if stopping is not None and not isinstance(stopping, EarlyStopping):
        stopping = EarlyStopping(stopping)
    saver = checkpoints if isinstance(checkpoints, Checkpoints) or checkpoints is None else Checkpoints(checkpoints)
    for keeper in (stopping, saver):
        if keeper is not None and keeper.monitor is not None:
            check.one_of("fit", "monitor", keeper.monitor, names_of_row(figures, validation))
    progress = ProgressBar(figures, epochs, len(reader)) if ProgressBar.is_wanted(bar) else None
    hooks = Callbacks([progress, *callbacks, stopping, saver])  # the bar is gone before a callback prints
    state = TrainingState(
        model=model, optimizer=optimizer, loader=reader, validation=stateful(validation), forward=stateful(forward),
        scheduler=scheduler, ema=ema, figures=figures, stepper=stepper, callbacks=hooks,
    )  # fmt: skip
    state.epochs = epochs

    def finish_step() -> None:
        schedule.after_step()
        if ema is not None:
            ema.update()

    start_run(state, saver, resume)
    start_pass(validation, None if state.batch else train_loader)  # somebody may have looked at a batch
    model.train()
    try:
        hooks("on_start", state)
        while state.epoch < epochs and state.stopped is None:
            if not state.batch:
                figures.reset()
                start_pass(forward, train_loader)
            hooks("on_epoch_start", state)
            clock = time.perf_counter()
            for batch in reader.batches(state.batch):
                outputs, targets = forward(model, batch)
                loss = loss_fn(outputs, targets)
                figures.update(loss, outputs, targets)
                if not loss.device.is_async:  # elsewhere each look would wait for the queued work
                    require_finite(loss.item(), state.epoch + 1, state.batch + 1)
                if stepper(loss, items_in(targets)):
                    finish_step()
                state.batch += 1
                now = time.perf_counter()
                state.seconds, clock = state.seconds + now - clock, now
                hooks("on_step", state)
                if state.stopped is not None:
                    break
            else:
                if stepper.flush():
                    finish_step()
                row = training_row(state, figures, optimizer)
                if validation is not None:
                    with averaged(state):
                        row |= numbers("val_", evaluate(model, loss_fn, validation, metrics, forward=forward))
                state.history.append(row)
                state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
                schedule.after_epoch(state)
                hooks("on_epoch_end", state)
        hooks("on_end", state)
    finally:
        hooks("on_exit", state)
    return state.history


def training_row(state: TrainingState, figures: Figures, optimizer: Optimizer) -> Row:
    """The row of an epoch whose batches are all done, without validation."""
    if not figures.items:
        raise ValueError("fit: train_loader must yield at least one batch, but yielded none")
    train = figures.compute()
    require_finite(train["loss"], state.epoch + 1)
    loss = {"loss": train.pop("loss")}
    speed = {"seconds": state.seconds, "items_per_second": figures.items / state.seconds}
    return {"epoch": state.epoch + 1, **loss, **numbers("train_", train), "lr": optimizer.lr, **speed}


def names_of_row(figures: Figures, validation: Any) -> list[str]:
    """The names that the figures of an epoch can have."""
    held_out = [] if validation is None else ["val_loss", *(f"val_{name}" for name in figures.metrics)]
    return ["loss", *(f"train_{name}" for name in figures.metrics), *held_out]


def numbers(prefix: str, figures: Mapping[str, Any]) -> Row:
    """Those figures that are numbers."""
    return {f"{prefix}{name}": float(x) for name, x in figures.items() if getattr(x, "ndim", 0) == 0}


def stateful(part: Any) -> Any:
    """A part, or None if it has no state."""
    return part if hasattr(part, "state_dict") else None
