"""The one-cycle policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import cos, pi
from typing import ClassVar

from needle import check
from needle.optim.lr_scheduler.base import Check, LRScheduler, numbers, positive
from needle.optim.optimizer import Optimizer

__all__ = ["OneCycleLR"]

above_zero = partial(check.number, above=0)


class OneCycleLR(LRScheduler):
    """One cycle of `total_steps` steps: up from max_lr / div_factor to `max_lr`, and down to a tiny rate.

        up for pct_start · total_steps - 1 steps, from max_lr / div_factor to max_lr,
        then down to max_lr / div_factor / final_div_factor at step total_steps - 1,
        with three_phase down as fast as up, to max_lr / div_factor, and from there to the end.

    Between two such marks `anneal_strategy` "cos" follows half a cosine, "linear" a line. With `cycle_momentum` the
    optimizer's momentum, or its first beta, goes from `max_momentum` down to `base_momentum` while the rate rises, and
    back while it falls. Call `step` after each batch. `max_lr`, `base_momentum` and `max_momentum` are numbers, or
    lists of one for each group. The peak may lie between two steps. A loop that calls `step` after each of total_steps
    batches ends at step total_steps, one beyond the curve: there a cosine rises again, and a line stays at its end.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates"
    (2018).

    Raises what `LRScheduler` raises, and ValueError if neither `total_steps` nor both of `epochs` and `steps_per_epoch`
    are given, if one of these is less than 1, if `pct_start` is outside of [0, 1], if a factor is not positive, if a
    list has another length than the groups, if `cycle_momentum` finds no momentum, and from step total_steps + 1 on.

    >>> from needle import init, optim
    >>> optimizer = optim.SGD([init.zeros(1, requires_grad=True)], lr=0.1)
    >>> schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=10, pct_start=0.5, anneal_strategy="linear")
    >>> rates = [optimizer.lr]
    >>> for _ in range(9):
    ...     schedule.step()
    ...     rates.append(round(optimizer.lr, 3))
    >>> rates
    [0.04, 0.28, 0.52, 0.76, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    """

    options: ClassVar[dict[str, Check]] = LRScheduler.options | {
        "max_lrs": numbers,
        "total_steps": positive,
        "pct_start": partial(check.number, least=0, most=1),
        "anneal_strategy": partial(check.one_of, choices=("cos", "linear")),
        "cycle_momentum": partial(check.instance, kind=bool),
        "base_momentums": numbers,
        "max_momentums": numbers,
        "final_div_factor": above_zero,
        "three_phase": partial(check.instance, kind=bool),
    }

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check.instance("OneCycleLR", "optimizer", optimizer, Optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "OneCycleLR: total_steps, or both epochs and steps_per_epoch, must be given, but got "
                    f"{total_steps}, {epochs} and {steps_per_epoch}"
                )
            total_steps = positive("OneCycleLR", "epochs", epochs) * positive(
                "OneCycleLR", "steps_per_epoch", steps_per_epoch
            )
        self.total_steps, self.pct_start, self.anneal_strategy = total_steps, pct_start, anneal_strategy
        self.cycle_momentum, self.three_phase, self.final_div_factor = cycle_momentum, three_phase, final_div_factor
        self.max_lrs = self._for_groups("max_lr", max_lr)
        self.base_momentums = self._for_groups("base_momentum", base_momentum)
        self.max_momentums = self._for_groups("max_momentum", max_momentum)
        div_factor, self.last_epoch = above_zero("OneCycleLR", "div_factor", div_factor), last_epoch
        if cycle_momentum and not {"betas", "momentum"} & optimizer.param_groups[0].keys():
            kind = type(optimizer).__name__
            raise ValueError(f"OneCycleLR: with cycle_momentum the optimizer must have a momentum, but got {kind}")
        if last_epoch == -1:
            for group, top in zip(optimizer.param_groups, self.max_lrs, strict=True):
                group["initial_lr"] = top / div_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        rates = []
        for base, top in zip(self.base_lrs, self._match("max_lr", self.max_lrs), strict=True):
            low = base / self.final_div_factor
            rates.append(self._between([base, top, base, low] if self.three_phase else [base, top, low]))
        return rates

    def _move(self, epoch: int) -> None:
        if epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step must stay within total_steps={self.total_steps}, but got {epoch}")
        super()._move(epoch)
        if self.cycle_momentum:
            for group, low, top in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                momentum = self._between([top, low, top, top] if self.three_phase else [top, low, top])
                if "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])
                else:
                    group["momentum"] = momentum

    def _between(self, marks: Sequence[float]) -> float:
        """The value at this step of a curve through `marks`, its values where the phases begin and end."""
        step, up, last = self.last_epoch, self.pct_start * self.total_steps - 1, self.total_steps - 1
        ends = [up, 2 * up, last] if self.three_phase else [up, last]
        phase = next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)
        begin, end = ends[phase - 1] if phase else 0.0, ends[phase]
        first, then = marks[phase], marks[phase + 1]
        part = (step - begin) / (end - begin) if end != begin else 1.0
        if self.anneal_strategy == "cos":
            return then + (first - then) / 2 * (cos(pi * part) + 1)
        return first + (then - first) * min(part, 1.0)
