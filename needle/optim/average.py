"""Averages of weights over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from needle import check, kernels
from needle.autograd import Tensor
from needle.backend import depend, device_of, live, refuse, xp
from needle.kernels import Rule, Settings
from needle.nn import Module
from needle.nn.state import load, move
from needle.optim.groups import is_same
from needle.optim.optimizer import alike

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """Exponential moving averages of a model's parameters; with `use_buffers` of its buffers, too.

        average = decay · average + (1 - decay) · weight

    The first `update` copies the weights. Averages have shape, dtype and device of their weights; integers are
    averaged in float32 and cut, as in torch. `decay` may be assigned between updates. Parameters are those that the
    model has at first, as in an optimizer; buffers may be replaced, and one that is new, or has another shape, begins
    anew.

    Call `update()` after each `optimizer.step()`, and evaluate in `with ema.applied():`.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), with exponential
    weights as in torch's `AveragedModel` with `get_ema_multi_avg_fn`.

    Raises TypeError if `model` is not a Module or `use_buffers` not a bool, ValueError if `decay` is outside of [0, 1].

    >>> from needle import nn, optim
    >>> model = nn.Linear(1, 1)
    >>> ema = ExponentialMovingAverage(model, decay=0.75)
    >>> for value in (1.0, 3.0):
    ...     model.weight.data = Tensor([[value]], dtype="float32")
    ...     ema.update()
    >>> with ema.applied():
    ...     model.weight.item()
    1.5
    >>> model.weight.item()
    3.0
    """

    def __init__(self, model: Module, decay: float = 0.999, use_buffers: bool = False) -> None:
        name = type(self).__name__
        self.model = check.instance(name, "model", model, Module)
        self.use_buffers = check.instance(name, "use_buffers", use_buffers, bool)
        self.decay = decay
        self.n_averaged = 0
        self._parameters = dict(model.named_parameters())
        self._averages: dict[str, Tensor] = {}
        self._arrays: list[Any] = []  # those of the weights, for which `_pairs` were made
        self._pairs: list[tuple[Any, Any]] = []
        self._pair(self._weights(model))

    @property
    def decay(self) -> float:
        """What an update leaves of the average before."""
        return self._decay

    @decay.setter
    def decay(self, decay: float) -> None:
        self._decay = check.number(type(self).__name__, "decay", decay, least=0, most=1)

    def _weights(self, model: Module) -> dict[str, Tensor]:
        """The tensors that are averaged, by name, or their like in another model."""
        parameters = self._parameters if model is self.model else dict(model.named_parameters())
        return {**parameters, **dict(model.named_buffers() if self.use_buffers else ())}

    def update(self) -> None:
        """Take the weights as they are now into the averages. Nothing is recorded, and no weight changes."""
        weights = self._weights(self.model)
        arrays = [weight.array for weight in weights.values()]
        if not is_same(arrays, self._arrays):
            self._pair(weights)
        averages = [*self._averages.values()]
        depend(lambda: self.n_averaged > 0 and is_same([*self._averages.values()], averages))
        if self.n_averaged:
            self._blend()
        else:
            for average, weight in self._pairs:
                average[...] = weight
            self.n_averaged = 1

    def _blend(self) -> None:
        """Move the averages towards the weights."""
        for position, pairs in enumerate(alike(self._pairs)):
            average = pairs[0][0]
            compute = partial(self._settings, position == 0)
            cell = live(device_of(average), compute, average.dtype if average.dtype.kind == "f" else "float32")
            kernels.update_each(average, pairs, RULE, compute() if cell is None else cell)

    def _settings(self, is_first: bool) -> tuple[float, float]:
        """What an update takes of the weight and leaves of the average; the first call counts it."""
        self.n_averaged += is_first
        return 1 - self.decay, self.decay

    def _pair(self, weights: dict[str, Tensor]) -> None:
        """Give each weight its average, on its device and in its dtype; note the arrays of both."""
        averages, self._averages = self._averages, {}
        for name, weight in weights.items():
            average = averages.get(name)
            if average is None or average.shape != weight.shape:
                average = Tensor(weight, requires_grad=False)
            move(average, weight.device, weight.dtype)
            self._averages[name] = average
        self._arrays = [weight.array for weight in weights.values()]
        self._pairs = [*zip((average.array for average in self._averages.values()), self._arrays, strict=True)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model, and at the end of `with` the weights back, also after an error.

        Weights that are changed in between are lost.
        """
        weights = self._weights(self.model)
        kept = {name: Tensor(weight, requires_grad=False) for name, weight in weights.items()}
        try:
            self.copy_to()
            yield
        finally:
            load(weights, kept, True, (), {})

    def copy_to(self, model: Module | None = None) -> None:
        """Put the averages into `model`, or into the model itself.

        Raises TypeError if `model` is not a Module, and ValueError if it has other names or shapes.
        """
        model = self.model if model is None else check.instance("copy_to", "model", model, Module)
        weights = self._weights(model)
        if model is self.model:
            self._pair(weights)
        load(weights, self._averages, True, (), {})

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """`decay`, `n_averaged`, the count of updates, and `averages` by name.

        They are copies; with `copy=False` they share memory with this object, and change with it.
        """
        check.instance("state_dict", "copy", copy, bool)
        refuse("state_dict", "a copy on the host")
        averages = {name: Tensor(x, requires_grad=False) if copy else x.detach() for name, x in self._averages.items()}
        return {"decay": self.decay, "n_averaged": self.n_averaged, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned.

        Raises, before anything is changed, TypeError if `state` is not a mapping, and ValueError if it has other
        entries, or averages of other names or shapes.
        """
        name = type(self).__name__
        if check.instance(name, "state", state, Mapping).keys() != {"decay", "n_averaged", "averages"}:
            given = ", ".join(map(str, state))
            raise ValueError(f"{name}: the state must have decay, n_averaged and averages, but got {given}")
        refuse(name, "a loaded state")
        count = check.integer(name, "n_averaged", state["n_averaged"], least=0)
        decay = check.number(name, "decay", state["decay"], least=0, most=1)
        load(self._averages, check.instance(name, "averages", state["averages"], Mapping), True, (), {})
        self.decay, self.n_averaged, self._arrays = decay, count, []


def _blend(average: Any, weight: Any, state: Any, scratch: Any, options: Any, settings: Settings) -> None:
    """average = average + (1 - decay)·(weight - average)."""
    rise, decay = settings
    if average.dtype.kind == "f":
        xp(average).subtract(weight, average, scratch)
        scratch *= rise
        average += scratch
    else:
        average[...] = average.astype("float32") * decay + weight.astype("float32") * rise


RULE = Rule(_blend, "average")
