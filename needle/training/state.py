"""All that a training run needs to go on after it was stopped, in one object."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

from needle import check
from needle.backend import get_rng_state, set_rng_state
from needle.checkpoint import load, save
from needle.nn import Module
from needle.optim import ExponentialMovingAverage, Optimizer

__all__ = ["TrainingState"]

Row: TypeAlias = dict[str, float]  # the figures of an epoch


class HasState(Protocol):
    """An object whose state is plain data: a module, an optimizer, a scheduler, a loader, a metric."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> object: ...


class TrainingState:
    """What a run needs to go on bit for bit: its parts, where it is, its history, the random stream.

    `TrainingState(model=model, optimizer=optimizer, loader=loader)` takes any objects with `state_dict` and
    `load_state_dict`, by names of your choice; None is left out. `epoch` counts the epochs that are complete, `batch`
    the batches of the one after them. `history` holds a row of figures for each epoch, `seconds` the training time of
    the current one. The random stream is `ndl.get_rng_state()`; a loader with a seed keeps its generator in its state.

    To go on, make the same objects again, and `load`.

    Raises TypeError if a part has no state, ValueError if its name is one that the state itself uses.

    >>> from needle import nn, optim
    >>> model = nn.Linear(2, 1)
    >>> state = TrainingState(model=model, optimizer=optim.SGD(model.parameters()))
    >>> sorted(state.state_dict())
    ['batch', 'epoch', 'history', 'model', 'optimizer', 'rng', 'seconds']
    """

    def __init__(self, **parts: HasState | None) -> None:
        self.epoch, self.batch, self.seconds = 0, 0, 0.0
        self.history: list[Row] = []
        self.epochs = 0  # of the whole run
        self.workers = 1  # that compute each batch together
        self.stopped: str | None = None
        self.parts: dict[str, HasState] = {}
        for name, part in parts.items():
            if name in _OWN:
                raise ValueError(f"TrainingState: parts must not be named {', '.join(_OWN)}, but got {name}")
            if not (part is None or (hasattr(part, "state_dict") and hasattr(part, "load_state_dict"))):
                got = type(part).__name__
                raise TypeError(f"TrainingState: {name} must have state_dict and load_state_dict, but got {got}")
            if part is not None:
                self.parts[name] = part

    def stop(self, reason: str) -> None:
        """Ask `fit` to end after the current step; `stopped` keeps the reason, which is not saved."""
        self.stopped = reason

    def figure(self, monitor: str | None = None) -> float:
        """A figure of the last epoch: by default "val_loss", or "loss" without validation."""
        row = self.history[-1]
        name = monitor or ("val_loss" if "val_loss" in row else "loss")
        return row[check.one_of("fit", "monitor", name, row)]

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """The state of every part by its name, and the run's own, as plain data for `ndl.save`.

        With `copy=False` arrays of modules, optimizers and averages are shared: they change with the next step.
        """
        check.instance("state_dict", "copy", copy, bool)
        state = {name: _state_of(part, copy) for name, part in self.parts.items()}
        history = [dict(row) for row in self.history]
        own = (self.epoch, self.batch, self.seconds, history, get_rng_state())
        return state | dict(zip(_OWN, own, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, of the same parts.

        Raises ValueError if `state` holds other names, TypeError if it is no dict, and what the parts raise. All parts
        are as before then.
        """
        op = "TrainingState"
        check.entries(op, "state", state, [*self.parts, *_OWN])
        epoch, batch = (check.integer(op, name, state[name], least=0) for name in ("epoch", "batch"))
        seconds = check.number(op, "seconds", state["seconds"], least=0)
        history = [
            dict(check.instance(op, "each row of history", row, dict))
            for row in check.instance(op, "history", state["history"], list)
        ]
        before = {name: part.state_dict() for name, part in self.parts.items()}
        loaded = []
        try:
            for name, part in self.parts.items():
                loaded.append(name)
                part.load_state_dict(state[name])
            set_rng_state(state["rng"])
        except BaseException:
            for name in loaded:
                self.parts[name].load_state_dict(before[name])
            raise
        self.epoch, self.batch, self.seconds, self.history = epoch, batch, seconds, history

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file with `ndl.save`, without copies in memory."""
        save(path, self.state_dict(copy=False))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over the state that `save` wrote; errors as in `ndl.load` and `load_state_dict`."""
        self.load_state_dict(load(path))


def _state_of(part: Any, copy: bool) -> Any:
    shares = not copy and isinstance(part, (Module, Optimizer, ExponentialMovingAverage))
    return part.state_dict(copy=False) if shares else part.state_dict()


def averaged(state: TrainingState) -> AbstractContextManager[Any]:
    """A block in which the model has its averaged weights, if the run has a part `ema`."""
    ema: Any = state.parts.get("ema")
    return nullcontext() if ema is None else ema.applied()


_OWN = ("epoch", "batch", "seconds", "history", "rng")
