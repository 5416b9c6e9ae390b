"""Schedules that multiply: steps, ramps, exponential and polynomial decay, and functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any, ClassVar

from needle import check
from needle.optim.groups import finite
from needle.optim.lr_scheduler.base import Check, LRScheduler, RecursiveScheduler, epochs, positive
from needle.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "PolynomialLR",
    "StepLR",
]

share = partial(check.number, above=0, most=1)


class FunctionScheduler(LRScheduler):
    """A schedule by a function of the epoch, one for all groups or one for each.

    `state_dict` holds the attributes of functions that are objects with attributes, and None for plain functions.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        name = type(self).__name__
        self.optimizer = check.instance(name, "optimizer", optimizer, Optimizer)
        functions: list[Any] = [lr_lambda] * len(optimizer.param_groups)
        if isinstance(lr_lambda, (list, tuple)):
            functions = self._match("lr_lambda", [*lr_lambda])
        for function in functions:
            if not callable(function):
                raise TypeError(f"{name}: lr_lambda must be a function or a list of functions, but got {function!r}")
        self.lr_lambdas: list[Callable[[int], float]] = functions
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[float]:
        """The value of each group's function at `last_epoch`."""
        return [function(self.last_epoch) for function in self._match("lr_lambda", self.lr_lambdas)]

    def state_dict(self) -> dict[str, Any]:
        own = [None if isinstance(f, FunctionType) else {**getattr(f, "__dict__", {})} for f in self.lr_lambdas]
        return super().state_dict() | {"lr_lambdas": own}

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        name = type(self).__name__
        own = check.instance(name, "state", state, Mapping).get("lr_lambdas")
        entries = self._match("lr_lambdas", check.instance(name, "lr_lambdas", own, list))
        for function, entry in zip(self.lr_lambdas, entries, strict=True):
            check.instance(name, "each of lr_lambdas", {} if entry is None else entry, dict)
            if entry and (isinstance(function, FunctionType) or not hasattr(function, "__dict__")):
                raise ValueError(f"{name}: lr_lambdas must be objects as they were for the state, but got {function!r}")
        read = super()._read({key: value for key, value in state.items() if key != "lr_lambdas"})
        return read | {"own": own}

    def _load(self, read: dict[str, Any]) -> None:
        for function, attributes in zip(self.lr_lambdas, read.pop("own"), strict=True):
            if attributes:
                vars(function).update(attributes)
        super()._load(read)


class LambdaLR(FunctionScheduler):
    """The base rate times a function of the epoch: lr = base_lr · lr_lambda(epoch).

    `lr_lambda` is one function for all groups or a list of one for each. `state_dict` holds the attributes of functions
    that are objects, but no plain function or lambda: pass those again.

    Raises what `LRScheduler` raises, TypeError if `lr_lambda` is not callable, and ValueError if a list has another
    length than the groups.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> schedule.step()
    >>> optimizer.lr
    0.25
    """

    def get_lr(self) -> list[float]:
        return [base * factor for base, factor in zip(self.base_lrs, self._factors(), strict=True)]


class MultiplicativeLR(FunctionScheduler):
    """The rate before times a function of the epoch, from epoch 1 on: lr = lr · lr_lambda(epoch).

    Arguments, state and errors as in `LambdaLR`.
    """

    _start = RecursiveScheduler._start

    def get_lr(self) -> list[float]:
        return self._multiplied() if self.last_epoch else self._rates()

    def _multiplied(self) -> list[float]:
        return [rate * factor for rate, factor in zip(self._rates(), self._factors(), strict=True)]

    def _restart(self) -> None:  # it has no base rate: it goes on from the rates of the schedule before
        self.last_epoch = 0
        self._set(self._multiplied())


class StepLR(RecursiveScheduler):
    """lr = lr · gamma every `step_size` epochs.

    Raises what `LRScheduler` raises, and ValueError if `step_size` is less than 1 or `gamma` is negative or not finite.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for _ in range(4):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"step_size": positive, "gamma": finite}

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        return lr * self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else lr


class MultiStepLR(RecursiveScheduler):
    """lr = lr · gamma at each epoch in `milestones`; where an epoch is named n times, lr · gammaⁿ.

    Raises what `LRScheduler` raises, TypeError if `milestones` is not a list of integers, and ValueError if one of them
    or `gamma` is negative.
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"milestones": epochs, "gamma": finite}

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = epochs("MultiStepLR", "milestones", milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        return lr * self.gamma ** self.milestones.count(self.last_epoch)


class ConstantLR(RecursiveScheduler):
    """lr = lr · factor at first, and lr / factor at epoch `total_iters`: a lower rate for so long.

    Raises what `LRScheduler` raises, and ValueError if `factor` is outside of (0, 1] or `total_iters` is less than 1.
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"factor": share, "total_iters": positive}

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        if self.last_epoch == 0:
            return lr * self.factor
        return lr * (1 / self.factor) if self.last_epoch == self.total_iters else lr


class LinearLR(RecursiveScheduler):
    """A ramp, for warm-up: base_lr · (start_factor + (end_factor - start_factor) · epoch / total_iters), then constant.

    It is computed from the rate before, which is multiplied by the quotient of two such factors.

    Raises what `LRScheduler` raises, and ValueError if `start_factor` is outside of (0, 1], `end_factor` outside of
    [0, 1], or `total_iters` less than 1.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> optimizer.lr
    0.75
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {
        "start_factor": share,
        "end_factor": partial(check.number, least=0, most=1),
        "total_iters": positive,
    }

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        if self.last_epoch == 0:
            return lr * self.start_factor
        if self.last_epoch > self.total_iters:
            return lr
        rise = self.end_factor - self.start_factor
        growth = 1 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return lr * max(growth, 0.0)  # rounding may leave less than 0 where the ramp ends at 0


class ExponentialLR(RecursiveScheduler):
    """lr = lr · gamma at every epoch.

    Raises what `LRScheduler` raises, and ValueError if `gamma` is negative or not finite.
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"gamma": finite}

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        return lr * self.gamma if self.last_epoch else lr


class PolynomialLR(RecursiveScheduler):
    """base_lr · (1 - epoch / total_iters)^power, then 0; computed from the rate before, as a quotient.

    Raises what `LRScheduler` raises, and ValueError if `total_iters` is less than 1 or `power` negative or not finite.
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"total_iters": positive, "power": finite}

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def _next_lr(self, lr: float, base_lr: float) -> float:
        epoch, total = self.last_epoch, self.total_iters
        if epoch == 0 or epoch > total:
            return lr
        decay: float = ((1 - epoch / total) / (1 - (epoch - 1) / total)) ** self.power
        return lr * decay
