"""When the scheduler of a run steps."""

from __future__ import annotations

from needle import check
from needle.optim import Optimizer
from needle.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from needle.training.state import TrainingState


class Schedule:
    """Steps a scheduler after each epoch, or after each step of the optimizer; None is a schedule without steps.

    `by` is "epoch" or "step"; by default OneCycleLR goes by the step and all others by the epoch.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LRScheduler | None, by: str | None) -> None:
        if scheduler is not None:
            check.instance("fit", "scheduler", scheduler, LRScheduler)
            if scheduler.optimizer is not optimizer:
                raise ValueError("fit: scheduler must be one of the optimizer, but got one of another optimizer")
        check.one_of("fit", "schedule_by", by, ("epoch", "step", None))
        self.scheduler, self.by_step = scheduler, by == "step" or (by is None and isinstance(scheduler, OneCycleLR))
        if self.by_step and isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("fit: schedule_by must be 'epoch' for ReduceLROnPlateau, but got 'step'")

    def after_step(self) -> None:
        """Called after each step of the optimizer."""
        if self.scheduler is not None and self.by_step:
            self.scheduler.step()

    def after_epoch(self, state: TrainingState) -> None:
        """Called when the row of an epoch is complete; ReduceLROnPlateau looks at its main figure."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(state.figure())
        elif self.scheduler is not None and not self.by_step:
            self.scheduler.step()
