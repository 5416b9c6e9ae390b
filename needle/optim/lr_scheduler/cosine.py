"""Schedules that follow a cosine: annealing, and annealing with restarts."""

from __future__ import annotations

from math import cos, pi
from typing import ClassVar

from needle.optim.groups import finite
from needle.optim.lr_scheduler.base import Check, LRScheduler, RecursiveScheduler, positive
from needle.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"]


class CosineAnnealingLR(RecursiveScheduler):
    """eta_min + (base_lr - eta_min) · (1 + cos(π · epoch / T_max)) / 2: down in `T_max` epochs, then up again.

    It is computed from the rate before: its distance from `eta_min` is multiplied by the quotient of two such factors.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation 5, without
    restarts.

    Raises what `LRScheduler` raises, and ValueError if `T_max` is less than 1 or `eta_min` negative or not finite.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = CosineAnnealingLR(optimizer, T_max=4)
    >>> for _ in range(4):
    ...     schedule.step()
    >>> optimizer.lr
    0.0
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"T_max": positive, "eta_min": finite}

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        epoch, length, low = self.last_epoch, self.T_max, self.eta_min
        if epoch == 0:
            return lr
        if (epoch - 1 - length) % (2 * length) == 0:  # up from the bottom, where the quotient would divide by 0
            return lr + (base_lr - low) * (1 - cos(pi / length)) / 2
        return (1 + cos(pi * epoch / length)) / (1 + cos(pi * (epoch - 1) / length)) * (lr - low) + low


class CosineAnnealingWarmRestarts(LRScheduler):
    """eta_min + (base_lr - eta_min) · (1 + cos(π · T_cur / T_i)) / 2, where T_cur is 0 again after each cycle.

    The first cycle has T_i = `T_0` epochs, each further one `T_mult` times as many as the one before.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation 5.

    Raises what `LRScheduler` raises, and ValueError if `T_0` or `T_mult` is less than 1, or `eta_min` negative or not
    finite.
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"T_0": positive, "T_mult": positive, "eta_min": finite}

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        epoch, length = self.last_epoch, self.T_0
        if self.T_mult == 1:
            epoch %= length
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return [self.eta_min + (base - self.eta_min) * (1 + cos(pi * epoch / length)) / 2 for base in self.base_lrs]
