"""Schedules made of schedules: one after the other, and several at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from needle import check
from needle.optim.lr_scheduler.base import Check, LRScheduler, epochs
from needle.optim.lr_scheduler.plateau import ReduceLROnPlateau
from needle.optim.optimizer import Optimizer

__all__ = ["ChainedScheduler", "SequentialLR"]


class CompositeScheduler(LRScheduler):
    """Several schedules of one optimizer; the state holds theirs."""

    _schedulers: list[LRScheduler]

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> Optimizer:
        """Check and keep the schedules, and return their optimizer: `optimizer` if that is given."""
        name = type(self).__name__
        if not isinstance(schedulers, (list, tuple)):
            kind = type(schedulers).__name__
            raise TypeError(f"{name}: schedulers must be a list of schedulers, but got {kind}")
        if not schedulers:
            raise ValueError(f"{name}: schedulers must hold at least one, but got none")
        for scheduler in schedulers:
            check.instance(name, "each of schedulers", scheduler, LRScheduler)
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(f"{name}: schedulers must step without a metric, but got a ReduceLROnPlateau")
            optimizer = optimizer or scheduler.optimizer
            if scheduler.optimizer is not optimizer:
                kind = type(scheduler).__name__
                raise ValueError(f"{name}: schedulers must have the same optimizer, but {kind} has another one")
        self._schedulers = [*schedulers]
        return self._schedulers[0].optimizer

    def _parts(self) -> list[LRScheduler]:
        return [self, *(part for scheduler in self._schedulers for part in scheduler._parts())]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        name = type(self).__name__
        states = check.instance(name, "state", state, Mapping).get("_schedulers", [])
        if len(check.instance(name, "_schedulers", states, list)) != len(self._schedulers):
            raise ValueError(
                f"{name}: the state must hold those of {len(self._schedulers)} schedulers, but got {len(states)}"
            )
        read = super()._read({key: value for key, value in state.items() if key != "_schedulers"})
        inner = [scheduler._read(entry) for scheduler, entry in zip(self._schedulers, states, strict=True)]
        return read | {"inner": inner}

    def _load(self, read: dict[str, Any]) -> None:
        for scheduler, inner in zip(self._schedulers, read.pop("inner"), strict=True):
            scheduler._load(inner)
        super()._load(read)


class SequentialLR(CompositeScheduler):
    """One schedule after the other: the next begins, at its epoch 0 and from the base rates, at each milestone.

    `milestones` are the epochs, in rising order, at which the second, third … of `schedulers` begin. Schedules may be
    sequences themselves. A MultiplicativeLR, which has no base rate, goes on from the rate before.

    Raises what `LRScheduler` raises, TypeError if `schedulers` is not a list of schedules, and ValueError if it is
    empty or holds a ReduceLROnPlateau or a schedule of another optimizer, or if `milestones` are not one fewer and
    sorted.

    >>> from needle import init, optim
    >>> from needle.optim import lr_scheduler
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=1.0)
    >>> warm_up = lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=9)
    >>> decay = lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
    >>> schedule = SequentialLR(optimizer, [warm_up, decay], milestones=[2])
    >>> rates = [optimizer.lr]
    >>> for _ in range(3):
    ...     schedule.step()
    ...     rates.append(optimizer.lr)
    >>> rates
    [0.5, 0.5, 1.0, 0.1]
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {"_milestones": epochs}

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        check.instance("SequentialLR", "optimizer", optimizer, Optimizer)
        if last_epoch != -1:
            raise ValueError(f"SequentialLR: last_epoch must be -1 (load_state_dict goes on), but got {last_epoch!r}")
        self._take(schedulers, optimizer)
        self._milestones = self._ordered(epochs("SequentialLR", "milestones", milestones))
        super().__init__(optimizer)

    def _ordered(self, milestones: list[int]) -> list[int]:
        """Require milestones that are sorted and one fewer than the schedules."""
        count = len(self._schedulers)
        if milestones != sorted(milestones) or len(milestones) != count - 1:
            rule = "milestones must be sorted and one fewer than schedulers"
            raise ValueError(f"SequentialLR: {rule}, but got {milestones} for {count}")
        return milestones

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        read = super()._read(state)
        self._ordered(read["_milestones"])
        return read

    def _start(self) -> None:
        self._restart()

    def _move(self, epoch: int) -> None:
        index = bisect_right(self._milestones, epoch)
        scheduler = self._schedulers[index]
        if epoch == 0:
            scheduler._move(0)
        elif index and self._milestones[index - 1] == epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self.last_epoch, self._last_lr = epoch, scheduler.get_last_lr()


class ChainedScheduler(CompositeScheduler):
    """Several schedules at once: each of `schedulers` steps in turn, from the rates that the one before left.

    Raises what `SequentialLR` raises for `schedulers`.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        super().__init__(self._take(schedulers, optimizer))

    def _start(self) -> None:  # each schedule has made its own start
        self.last_epoch, self._last_lr = 0, self._rates()

    def _move(self, epoch: int) -> None:
        for scheduler in self._schedulers:
            scheduler._move(0) if epoch == 0 else scheduler.step()
        self.last_epoch, self._last_lr = epoch, self._rates()
