"""The figures of a pass over data: its mean loss and metrics."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.metrics import Mean, Metric

__all__ = ["Figures"]

WAITING_BATCHES, WAITING_ELEMENTS = 16, 4096  # most batches that wait, and elements of the outputs of each


class Figures:
    """The mean loss and the metrics of the batches so far. `update` never waits for a device; `compute` does.

    On the CPU small batches are copied, and added several at a time: between the steps of a network each call finds
    cold caches, and takes several times as long.

    `metrics` maps names to metrics of `needle.metrics`; the figures use copies of them. The mean is over items: losses
    of batches are weighted by the length of their targets.

    >>> from needle.metrics import Accuracy
    >>> figures = Figures({"accuracy": Accuracy()})
    >>> figures.update(Tensor(0.5), Tensor([[0.0, 1.0], [1.0, 0.0]]), Tensor([1, 1]))
    >>> figures.compute()
    {'loss': 0.5, 'accuracy': 0.5}
    """

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        metrics = check.instance("Figures", "metrics", {} if metrics is None else metrics, Mapping)
        for name, metric in metrics.items():
            check.instance("Figures", f"metrics[{name!r}]", metric, Metric)
        if "loss" in metrics:
            raise ValueError("Figures: metrics must not be named 'loss', the name of the mean loss, but one is")
        self.metrics = copy.deepcopy(dict(metrics))
        self.loss, self.items = Mean(), 0
        self._waiting: list[tuple[int, list[Any]]] = []  # batches that are not yet in the metrics
        self.reset()

    def update(self, loss: Tensor, outputs: Any, targets: Any, items: int | None = None) -> None:
        """Add a batch: its mean loss () over `items`, by default the length of the targets, and what the metrics take.

        Without metrics outputs and targets are not looked at.
        """
        items = items_in(targets) if items is None else items
        batch = [check.instance("Figures", "loss", loss, Tensor), *([outputs, targets] if self.metrics else [])]
        may_wait = self.items > 0 and all(map(_is_small, batch))  # what does not fit is told at the first batch
        self.items += items
        self._waiting.append((items, [Tensor.make_const(x.array.copy()) for x in batch] if may_wait else batch))
        if not may_wait or len(self._waiting) == WAITING_BATCHES:
            self._add_waiting()

    def _add_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for items, (loss, *seen) in waiting:
            self.loss.update(loss, items)  # which keeps no graph
            for metric in self.metrics.values():
                metric.update(*seen)

    def compute(self) -> dict[str, Any]:
        """`loss` and what each metric computes, by name."""
        self._add_waiting()
        return {"loss": self.loss.compute(), **{name: metric.compute() for name, metric in self.metrics.items()}}

    def reset(self) -> None:
        """Forget all batches."""
        self.items = 0
        self._waiting = []
        for metric in (self.loss, *self.metrics.values()):
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """The totals so far as plain data."""
        self._add_waiting()
        metrics = {name: metric.state_dict() for name, metric in self.metrics.items()}
        return {"items": self.items, "loss": self.loss.state_dict(), "metrics": metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises ValueError if the metrics have other names or states."""
        check.entries("Figures", "state", state, ("items", "loss", "metrics"))
        check.entries("Figures", "metrics of the state", state["metrics"], self.metrics)
        items = check.integer("Figures", "items", state["items"], least=0)
        self._add_waiting()
        self.loss.load_state_dict(state["loss"])
        for name, metric in self.metrics.items():
            metric.load_state_dict(state["metrics"][name])
        self.items = items


def _is_small(x: Any) -> bool:
    """Whether a copy of a loss, of outputs or targets costs next to nothing."""
    return isinstance(x, Tensor) and x.size <= WAITING_ELEMENTS and not x.device.is_async


def items_in(targets: Any) -> int:
    """The number of items of a batch: the length of its targets, or of the first of several."""
    shape: tuple[int, ...] | None = getattr(targets, "shape", None)
    if shape:
        return shape[0]
    if isinstance(targets, (tuple, list, Mapping)) and targets:
        return items_in(next(iter(targets.values() if isinstance(targets, Mapping) else targets)))
    if targets is None or shape == ():
        got = "None" if targets is None else "shape ()"
        raise ValueError(f"Figures: targets must have an axis of items, but got {got}")
    return len(targets)
