"""Samplers: which items an epoch consists of, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import HostArray
from needle.data import generator

__all__ = ["BalancedSampler", "WeightedRandomSampler"]


@runtime_checkable
class Sampler(Protocol):
    """Anything with a length that yields as many indices, anew at every `iter`: a list, or a sampler of torch."""

    def __iter__(self) -> Iterator[int]: ...

    def __len__(self) -> int: ...


class WeightedRandomSampler:
    """Draws `num_samples` indices per epoch, each with a probability in proportion to `weights` (N,).

    With `replacement` an index may be drawn more than once; without, at most once. Draws from NumPy's global generator,
    or with a `seed` from its own. The sum of the weights may be other than 1.

    Raises ValueError if the weights are not finite and at least 0, if none is above 0, if `num_samples` is less than 1,
    or without replacement greater than the number of weights above 0; TypeError if `replacement` is not a bool.

    >>> sampler = WeightedRandomSampler([0, 1, 0, 3], num_samples=5, seed=0)
    >>> len(sampler), set(sampler)
    (5, {1, 3})
    """

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True, *, seed: int | None = None) -> None:
        op = type(self).__name__
        self.weights = _checked_weights(op, weights)
        self.num_samples = check.integer(op, "num_samples", num_samples, least=1)
        self.replacement = check.instance(op, "replacement", replacement, bool)
        positive = np.count_nonzero(self.weights)
        if not replacement and self.num_samples > positive:
            raise ValueError(
                f"{op}: num_samples must be at most {positive}, the number of weights above 0, but got {num_samples}"
            )
        self._generator = generator.from_seed(op, seed)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        stream = self._generator or np.random
        weights = self.weights / self.weights.max()
        drawn = stream.choice(len(weights), self.num_samples, self.replacement, weights / weights.sum())
        return iter(drawn.tolist())

    def state_dict(self) -> dict[str, Any]:
        """The state of the sampler's own generator; None without a seed."""
        return {"generator": generator.get_state(self._generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw as the sampler did whose state this is.

        Raises TypeError or ValueError if `state` is not from `state_dict`, or if only one of the two had a seed.
        """
        op = type(self).__name__
        stream = check.entries(op, "state", state, ("generator",))["generator"]
        self._generator = generator.from_state(op, stream, self._generator)


class BalancedSampler(WeightedRandomSampler):
    """Draws every class equally often on average, however many items it has: the weight of an item is 1 / its class's.

    `labels` (N,) are the integer classes of the items. An epoch has `num_samples` items, N by default. Items of small
    classes are drawn several times, so augment them.

    Raises TypeError if the labels are not integers, ValueError if there is none; otherwise as `WeightedRandomSampler`.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    >>> drawn = labels[list(BalancedSampler(labels, 1000, seed=0))]
    >>> round(float(drawn.mean()), 1)
    0.5
    """

    def __init__(self, labels: Any, num_samples: int | None = None, *, seed: int | None = None) -> None:
        classes = np.asarray(labels.numpy() if isinstance(labels, Tensor) else labels)
        if classes.ndim != 1 or not classes.size:
            raise ValueError(f"BalancedSampler: labels must have shape (N,), N at least 1, but got {classes.shape}")
        if classes.dtype.kind not in "iu":
            raise TypeError(f"BalancedSampler: labels must be integers, but got dtype {classes.dtype}")
        _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
        super().__init__(1 / counts[classes], len(classes) if num_samples is None else num_samples, seed=seed)


def _checked_weights(op: str, weights: Any) -> HostArray:
    """Weights as an array (N,) of float64."""
    array = np.asarray(weights.numpy() if isinstance(weights, Tensor) else weights)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"{op}: weights must be numbers (N,), but got {array.dtype} of shape {array.shape}")
    result = array.astype(np.float64)
    for wrong in result[~((result >= 0) & (result < np.inf))][:1]:
        raise ValueError(f"{op}: weights must be finite and at least 0, but got {wrong}")
    if not result.any():
        raise ValueError(f"{op}: weights must have one above 0, but got {len(result)} of 0")
    return result
