"""The callbacks of a run, and the loader it reads: what `fit` needs around its loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import length_hint
from typing import Any

from needle import check
from needle.backend import get_rng_state, set_rng_state
from needle.backend.communicator import Alone, using
from needle.data import worker_batches
from needle.training.state import TrainingState

EVENTS = ("on_start", "on_epoch_start", "on_step", "on_epoch_end", "on_end", "on_exit")


class Callbacks:
    """Objects with any of the methods that `fit` calls: `on_start`, `on_step` and so on.

    Those with `state_dict` and `load_state_dict` are part of the run's state, under the names of their classes.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = [callback for callback in callbacks if callback is not None]
        for callback in self.callbacks:
            if not any(hasattr(callback, event) for event in EVENTS):
                got = type(callback).__name__
                raise TypeError(f"fit: callbacks must have any of the methods {', '.join(EVENTS)}, but got {got}")
        found = {event: [getattr(callback, event, None) for callback in self.callbacks] for event in EVENTS}
        self._methods = {event: [method for method in methods if method] for event, methods in found.items()}

    def __call__(self, event: str, state: TrainingState) -> None:
        """Call the method named `event` of all that have it, in order."""
        if methods := self._methods[event]:
            with using(Alone()):  # a callback may evaluate a model: that is nobody else's work
                for method in methods:
                    method(state)

    def __reduce__(self) -> Any:
        """Callbacks stay with rank 0."""
        return Callbacks, ((),)

    def _named(self) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for callback in self.callbacks:
            if hasattr(callback, "state_dict"):
                name = type(callback).__name__
                named[f"{name}_{len(named)}" if name in named else name] = callback
        return named

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one."""
        return {name: callback.state_dict() for name, callback in self._named().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises ValueError if other callbacks had a state."""
        named = self._named()
        check.entries("fit", "callbacks of the state", state, named)
        for name, callback in named.items():
            callback.load_state_dict(state[name])


class Reader:
    """The batches of a loader, from any position of an epoch.

    A loader with `state_dict` knows its position. Any other iterable is read again from the start of the epoch, with
    the random stream as it was there, and what was seen is skipped.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._has_state = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        self._rng: Mapping[str, Any] | None = None  # the random stream at the start of the epoch

    def __len__(self) -> int:
        """The number of batches of an epoch; 0 if the loader does not tell."""
        return length_hint(self.loader)

    def batches(self, done: int) -> Iterator[Any]:
        """The batches of an epoch of which `done` are complete."""
        if self._has_state:
            yield from worker_batches(self.loader)
            return
        now = get_rng_state()
        if done and self._rng is not None:
            set_rng_state(self._rng)
        else:
            self._rng = now
        batches = worker_batches(self.loader)
        if done:
            for _ in islice(batches, done):
                pass
            set_rng_state(now)
        yield from batches

    def state_dict(self) -> Any:
        """That of the loader; of one without, the random stream at the start of the epoch."""
        return self.loader.state_dict() if self._has_state else {"rng": self._rng}

    def load_state_dict(self, state: Any) -> None:
        """Go on from what `state_dict` returned."""
        if self._has_state:
            self.loader.load_state_dict(state)
        else:
            self._rng = state["rng"]


def check_loader(name: str, loader: Any, epochs: int) -> None:
    """Require a loader to have batches, in each epoch."""
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise TypeError(f"fit: {name} must be a loader of batches, but got {type(loader).__name__}")
    if not length_hint(loader, 1):
        raise ValueError(f"fit: {name} must yield at least one batch, but yielded none")
    if isinstance(loader, Iterator) and epochs > 1:
        got = type(loader).__name__
        raise TypeError(f"fit: {name} must be read anew in each epoch, but got the iterator {got}, which ends")
