"""`fit`: what it takes, and what it makes ready for the loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from needle import check
from needle.backend.communicator import current_communicator
from needle.distributed.launchers import warn_of_others
from needle.metrics import Metric
from needle.nn import Module
from needle.optim import ExponentialMovingAverage, Optimizer
from needle.optim.lr_scheduler import LRScheduler
from needle.training.auto import choose_workers
from needle.training.bar import ProgressBar
from needle.training.callbacks import Callbacks, Reader, check_loader
from needle.training.checkpoints import Checkpoints, start_run
from needle.training.common_start import share_start
from needle.training.evaluation import Forward, LossFunction, apply_model, start_pass
from needle.training.exchanges import end_alike
from needle.training.figures import Figures
from needle.training.likeness import described, of_loader, of_parts
from needle.training.loop import Run
from needle.training.schedule import Schedule
from needle.training.state import Row, TrainingState
from needle.training.stepper import Stepper
from needle.training.stopping import EarlyStopping
from needle.training.workers import check_workers, train_by_workers

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
    workers: int | Literal["auto"] = 1,
    compression: Literal["float16", "bfloat16"] | None = None,
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
    - `workers` is the number of processes that compute each batch together, or "auto": then a step is measured with one
      and with one for each core, before the run, and the faster number is taken. Rows, weights and checkpoints are
      those of one worker, up to rounding, and a run may go on with another number. `state.workers` is the number.
    - `compression` rounds the gradients that they exchange to "float16" or "bfloat16": see `SharedGradients`.

    Where several ranks call `fit` (`needle.distributed.join`, `launch`), they are the workers, each with the model and
    loaders that it has made. All begin with the state of rank 0, and return with its weights and history. Checkpoints,
    `resume`, callbacks and `bar` are those of rank 0; the others ignore theirs.

    A row has "epoch", "loss" (the mean over all items, before the step of their batch), "train_NAME" of each metric,
    "val_loss" and "val_NAME", "lr" of the first group, "seconds" of training and "items_per_second". Metrics that
    compute more than one number have no place in it.

    Raises ValueError or TypeError for arguments that do not fit, before the first step, RuntimeError if workers cannot
    start or one of them dies, the error of a worker if it raises one, and NonFiniteLoss if a loss is NaN or infinite:
    on the CPU before its step, on a GPU, where each look would wait, at the end of the epoch or before a checkpoint is
    written. Such weights never replace a checkpoint.
    """
    check.instance("fit", "model", model, Module)
    warn_of_others("fit")
    check.integer("fit", "epochs", epochs, least=1)
    check_loader("train_loader", train_loader, epochs)
    if validation is not None:
        check_loader("validation", validation, epochs)
    figures, stepper = Figures(metrics), Stepper(optimizer, accumulate, clip_norm, clip_value, compression)
    reader, schedule = Reader(train_loader), Schedule(optimizer, scheduler, schedule_by)
    stopping = early_stopping
    if stopping is not None and not isinstance(stopping, EarlyStopping):
        stopping = EarlyStopping(stopping)
    saver = checkpoints if isinstance(checkpoints, Checkpoints) or checkpoints is None else Checkpoints(checkpoints)
    for keeper in (stopping, saver):
        if keeper is not None and keeper.monitor is not None:
            check.one_of("fit", "monitor", keeper.monitor, names_of_row(figures, validation))
    batches, is_first = len(reader), current_communicator().rank == 0
    progress = ProgressBar(figures, epochs, batches) if ProgressBar.is_wanted(bar) else None
    hooks = Callbacks([progress, *callbacks, stopping, saver])  # the bar is gone before a callback prints
    if not is_first:
        hooks = Callbacks(())
    state = TrainingState(
        model=model, optimizer=optimizer, loader=reader, validation=stateful(validation), forward=stateful(forward),
        scheduler=scheduler, ema=ema, figures=figures, stepper=stepper, callbacks=hooks,
    )  # fmt: skip
    state.epochs = epochs
    if workers == "auto":
        workers = choose_workers(model, loss_fn, optimizer, train_loader, metrics=metrics, forward=forward).workers
    state.workers = check_workers(
        workers, model=model, loss_fn=loss_fn, optimizer=optimizer, train_loader=train_loader, validation=validation,
        metrics=metrics, forward=forward, scheduler=scheduler,
    )  # fmt: skip
    run = Run(
        state, model, loss_fn, optimizer, reader, validation, metrics, forward, schedule, ema, figures, stepper, hooks,
        save_every=None if saver is None else saver.every,
    )

    if is_first:
        start_run(state, saver, resume)
    start_pass(validation, None if state.batch else train_loader)  # somebody may have looked at a batch
    model.train()
    try:
        hooks("on_start", state)
        share_start(
            run, epochs=epochs, accumulate=accumulate, clip_norm=clip_norm, clip_value=clip_value,
            compression=compression, metrics=[*figures.metrics], schedule_by="step" if schedule.by_step else "epoch",
            optimizer=described(type(optimizer)), scheduler=described(type(scheduler)), ema=described(type(ema)),
            **of_parts(model, loss_fn, figures.metrics, forward), **of_loader("", train_loader),
            **of_loader("validation_", validation),
        )  # fmt: skip
        train_by_workers(run)
        hooks("on_end", state)
        end_alike(state, model, optimizer)
    finally:
        hooks("on_exit", state)
    return state.history


def names_of_row(figures: Figures, validation: Any) -> list[str]:
    """The names that the figures of an epoch can have."""
    held_out = [] if validation is None else ["val_loss", *(f"val_{name}" for name in figures.metrics)]
    return ["loss", *(f"train_{name}" for name in figures.metrics), *held_out]


def stateful(part: Any) -> Any:
    """A part, or None if it has no state."""
    return part if hasattr(part, "state_dict") else None
