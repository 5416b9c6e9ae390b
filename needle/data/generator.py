"""Own generators of loaders, samplers and splits: made from a seed, with their state as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np

from needle import check

__all__ = ["from_seed", "from_state", "get_state"]


def from_seed(op: str, seed: int | None) -> np.random.Generator | None:
    """A generator of this seed; None without one, where NumPy's global generator is drawn from."""
    return None if seed is None else np.random.default_rng(check.integer(op, "seed", seed, least=0))


def get_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a generator as a dict of integers, strings and such dicts; None for None."""
    return None if generator is None else dict(generator.bit_generator.state)


def from_state(op: str, state: Any, current: np.random.Generator | None) -> np.random.Generator | None:
    """A new generator that goes on from `state`, to take the place of `current`; None for None.

    Raises ValueError if only one of the two is None, or if `state` is not one that `get_state` returns.
    """
    if (state is None) != (current is None):
        here, there = ("no seed", "one") if current is None else ("a seed", "none")
        raise ValueError(f"{op}: a seed must be given as it was for the state, but got {here} where that has {there}")
    if state is None:
        return None
    generator = np.random.Generator(np.random.PCG64(0))
    try:
        generator.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{op}: generator must be the state of a PCG64, but got {state!r:.100}") from error
    return generator
