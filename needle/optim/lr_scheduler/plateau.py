"""A schedule that follows a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf, isnan, nan
from numbers import Real
from typing import Any, ClassVar

from needle import check
from needle.autograd import Tensor
from needle.backend import refuse
from needle.optim.groups import finite
from needle.optim.lr_scheduler.base import Check, LRScheduler, numbers
from needle.optim.optimizer import Optimizer

__all__ = ["ReduceLROnPlateau"]

count = partial(check.integer, least=0)


def metric(op: str, name: str, value: Any) -> float:
    """A number, also NaN or infinite, or a tensor that holds one."""
    if isinstance(value, Tensor) and value.size == 1:
        value = value.item()
    return nan if isinstance(value, Real) and isnan(value) else check.number(op, name, value)


def floor(op: str, name: str, value: Any) -> float | list[float]:
    """A finite number of at least 0, or a list of them."""
    return (numbers if isinstance(value, (list, tuple)) else finite)(op, name, value)


class ReduceLROnPlateau(LRScheduler):
    """lr = max(lr · factor, min_lr) once a metric has not improved for more than `patience` epochs.

    With `mode` "min" a metric improves if it is less than best · (1 - threshold), with "max" if it is more than best ·
    (1 + threshold); with `threshold_mode` "abs", if it is less than best - threshold or more than best + threshold.
    Take "abs" for metrics below 0, of which "rel" counts a constant one as an improvement for ever, as in torch. NaN is
    no improvement. After a reduction, `cooldown` epochs do not count. A change of a rate by at most `eps` is left out.
    `min_lr` is a number, or a list of one for each group.

    Raises TypeError and ValueError as `LRScheduler` does, and ValueError if `factor` is outside of [0, 1), if a number
    is negative, or if a list has another length than the groups.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> optimizer.lr
    0.5
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {
        "mode": partial(check.one_of, choices=("min", "max")),
        "factor": partial(finite, below=1),
        "patience": count,
        "threshold": finite,
        "threshold_mode": partial(check.one_of, choices=("rel", "abs")),
        "cooldown": count,
        "min_lr": floor,
        "eps": finite,
        "best": metric,
        "cooldown_counter": count,
        "num_bad_epochs": count,
    }

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = check.instance("ReduceLROnPlateau", "optimizer", optimizer, Optimizer)
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self._for_groups("min_lr", min_lr)
        self.min_lr = min_lr
        self.best = inf if mode == "min" else -inf
        self.cooldown_counter = self.num_bad_epochs = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return self._rates()

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        read = super()._read(state)
        self._for_groups("min_lr", read["min_lr"])
        return read

    def step(self, metrics: float | Tensor) -> None:  # type: ignore[override]  # all others take no argument
        """Count an epoch whose metric is `metrics`, and reduce the rates if the time has come.

        Raises TypeError if `metrics` is no number or tensor that holds one, or the rate of a group no number.
        """
        value = metric("ReduceLROnPlateau", "metrics", metrics)
        refuse("ReduceLROnPlateau", "a step of a schedule")
        floors = self._for_groups("min_lr", self.min_lr)
        rates = [finite("ReduceLROnPlateau", "lr", rate) for rate in self._rates()]
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            lower = [max(rate * self.factor, floor) for rate, floor in zip(rates, floors, strict=True)]
            rates = [new if old - new > self.eps else old for old, new in zip(rates, lower, strict=True)]
        self.last_epoch += 1
        self._set(rates)

    def _is_better(self, value: float) -> bool:
        """Whether a metric is an improvement on the best one."""
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            return sign * value > sign * (self.best * (1 + sign * self.threshold))
        return sign * value > sign * (self.best + sign * self.threshold)
