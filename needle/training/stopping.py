"""When training ends early: a figure that has stopped improving, or a loss that is no number any more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from needle import check
from needle.nn import Module
from needle.training.state import TrainingState, averaged

__all__ = ["EarlyStopping", "NonFiniteLoss"]


class NonFiniteLoss(FloatingPointError):
    """The loss, or a weight, is NaN or infinite: the run cannot go on from here."""


def require_finite(loss: float, epoch: int, batch: int | None = None) -> None:
    """Raise NonFiniteLoss if the loss of an epoch, or of one of its batches, is NaN or infinite."""
    if not math.isfinite(loss):
        where = f"epoch {epoch}" if batch is None else f"batch {batch} of epoch {epoch}"
        raise NonFiniteLoss(
            f"fit: the loss must be finite, but got {loss} in {where}; lower the learning rate, clip the gradients "
            "(clip_norm=1), or look for the first bad value with ndl.detect_anomaly()"
        )


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a figure improves on the best so far by more than `min_delta`; NaN never does."""
    if best is None:
        return not math.isnan(value)
    return value < best - min_delta if mode == "min" else value > best + min_delta


class EarlyStopping:
    """Ends training when a figure has not improved for `patience` epochs in a row, and keeps the best weights.

    `monitor` names the figure of a row: "val_loss" by default, or "loss" without validation. It improves if it falls
    below its best by more than `min_delta`, or rises above it with `mode="max"`. With `restore_best` the model gets the
    weights of its best epoch when training ends, early or not.

    In a loop of your own: `if stopping.update(val_loss, model): break`, and `stopping.restore(model)` at the end.

    Raises TypeError or ValueError if `patience` is not an integer of at least 1, `min_delta` not a number of at least 0
    or `mode` neither "min" nor "max".

    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.update(loss) for loss in (1.0, 0.8, 0.9, 0.8)]
    [False, False, False, True]
    """

    def __init__(
        self,
        patience: int = 10,
        *,
        monitor: str | None = None,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best: bool = True,
    ) -> None:
        self.patience = check.integer("EarlyStopping", "patience", patience, least=1)
        self.monitor = monitor if monitor is None else check.instance("EarlyStopping", "monitor", monitor, str)
        self.min_delta = check.number("EarlyStopping", "min_delta", min_delta, least=0)
        self.mode = check.one_of("EarlyStopping", "mode", mode, ("min", "max"))
        self.restore_best = check.instance("EarlyStopping", "restore_best", restore_best, bool)
        self.forget()

    def forget(self) -> None:
        """Begin anew: no epoch was noted."""
        self.wait = 0  # epochs in a row without an improvement
        self.reference: float | None = None  # the figure of the last improvement
        self.best: float | None = None  # the best figure, whatever `min_delta` is, and the model's state there
        self.best_state: Mapping[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the patience is used up."""
        return self.wait >= self.patience

    def update(self, figure: float, model: Module | None = None) -> bool:
        """Note the figure of an epoch, and the weights if it is the best; returns whether training should end."""
        if is_better(figure, self.best, self.mode):
            self.best = figure
            if model is not None and self.restore_best:
                self.best_state = model.state_dict()
        if is_better(figure, self.reference, self.mode, self.min_delta):
            self.reference, self.wait = figure, 0
        else:
            self.wait += 1
        return self.is_over

    def on_start(self, state: TrainingState) -> None:
        """Called by `fit`: a run that goes on may be over already, and one that begins forgets an earlier run."""
        if not state.epoch:
            self.forget()
        if self.is_over:
            state.stop(f"no improvement for {self.patience} epochs")

    def on_epoch_end(self, state: TrainingState) -> None:
        """Called by `fit`; with averaged weights, these are kept, since they were validated."""
        with averaged(state):
            self.update(state.figure(self.monitor), cast(Module, state.parts["model"]))
        self.on_start(state)

    def on_end(self, state: TrainingState) -> None:
        """Called by `fit`: restore the best weights, unless training was stopped for another reason."""
        if self.is_over or state.epoch >= state.epochs:
            self.restore(cast(Module, state.parts["model"]))

    def restore(self, model: Module) -> None:
        """Give the model the weights of its best epoch, if they were kept."""
        if self.best_state is not None:
            model.load_state_dict(self.best_state)

    def state_dict(self) -> dict[str, Any]:
        """What was noted so far, with the best weights, as plain data."""
        return {name: getattr(self, name) for name in ("wait", "reference", "best", "best_state")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        op = "EarlyStopping"
        check.entries(op, "state", state, ("wait", "reference", "best", "best_state"))
        for name in ("reference", "best"):
            if state[name] is not None:
                check.number(op, name, state[name])
        self.wait = check.integer(op, "wait", state["wait"], least=0)
        self.reference, self.best, self.best_state = state["reference"], state["best"], state["best_state"]
