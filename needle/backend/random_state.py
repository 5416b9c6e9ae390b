"""The state of the random stream that needle draws from, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from needle import check

__all__ = ["get_rng_state", "set_rng_state"]

_LIMITS = {"pos": 624, "has_gauss": 1}  # NumPy reads past the end of its key with a larger pos


def get_rng_state() -> dict[str, Any]:
    """A copy of the state of NumPy's legacy global stream, from which needle draws for all devices.

    The form is NumPy's, `np.random.get_state(legacy=False)`: nested dicts of integers, floats, names and one uint32
    array (624,). `ndl.save` writes it. CuPy's own streams are not in it: they cannot be read, and needle draws nothing
    from them.

    >>> before = get_rng_state()
    >>> first = np.random.rand()
    >>> set_rng_state(before)
    >>> first == np.random.rand()
    True
    """
    state: dict[str, Any] = np.random.get_state(legacy=False)
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Continue the stream where `get_rng_state` returned `state`, also in another process.

    Raises TypeError if `state` is not a mapping, and ValueError if it is not a state of NumPy's current global
    generator; the stream is unchanged then.
    """
    check.instance("set_rng_state", "state", state, Mapping)
    wrong = _difference(state, get_rng_state())
    if wrong:
        raise ValueError(f"set_rng_state: state must be what get_rng_state returned, but got {wrong}")
    np.random.set_state(state)  # type: ignore[arg-type]  # NumPy's stub wants a dict with all types


def _difference(state: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> str | None:
    """What distinguishes the form of a state from that of `own`."""
    if state.keys() != own.keys():
        return f"{path}{sorted(state.keys() ^ own.keys(), key=str)} on one side only"
    for name, value in own.items():
        given, where = state[name], f"{path}{name}"
        if isinstance(value, Mapping):
            wrong = _difference(given, value, f"{where}.") if isinstance(given, Mapping) else f"{where} {given!r}"
            if wrong:
                return wrong
        elif isinstance(value, np.ndarray):
            shape, dtype = getattr(given, "shape", None), getattr(given, "dtype", None)
            if shape != value.shape or dtype != value.dtype:
                return f"{where} of shape {shape} and dtype {dtype}"
        elif type(given) is not type(value) or not _is_allowed(name, given, value):
            return f"{where} {given!r}"
    return None


def _is_allowed(name: str, given: Any, own: Any) -> bool:
    return given == own if isinstance(own, str) else name not in _LIMITS or 0 <= given <= _LIMITS[name]
