"""The calls of a plan that are not NumPy's own, and how a list of calls is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Calls", "Missed", "ask", "draw_into", "run_calls", "set_state", "store"]

Array: TypeAlias = Any
Calls: TypeAlias = list[Callable[[], Any]]


class Missed(Exception):  # noqa: N818 (no error: the step runs eagerly instead)
    """A question about values has another answer than when it was recorded."""


def run_calls(calls: Calls) -> None:
    """Make the calls in order."""
    for call in calls:
        call()


def store(target: Array, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Write the result of a function that has no argument for it."""
    target[...] = function(*args, **kwargs)


def draw_into(target: Array, draw: Callable[[], Array]) -> None:
    """Write the next numbers of NumPy's stream."""
    target[...] = draw()


def ask(array: Array, answer: bool) -> None:
    """Leave the replay unless the one element of an array is true, or false, as it was."""
    if bool(array) is not answer:
        raise Missed


def set_state(errors: tuple[tuple[str, Any], ...], size: int) -> None:
    """Set how NumPy treats errors of arithmetic, and the size of the buffers of its ufuncs."""
    np.seterr(**dict(errors))
    np.setbufsize(size)
