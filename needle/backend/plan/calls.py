"""The calls of a plan that are not NumPy's own, and how a list of calls is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np

from needle.backend.recording import Missed, Numbers

__all__ = [
    "Calls", "Filling", "ask", "ask_all", "draw_into", "run_calls", "run_or_call", "run_within", "set_state", "store",
    "store_all",
]  # fmt: skip

Array: TypeAlias = Any
Calls: TypeAlias = list[Callable[[], Any]]


def run_calls(calls: Calls) -> None:
    """Make the calls in order."""
    for call in calls:
        call()


def run_or_call(calls: Calls, function: Callable[..., Any], args: tuple[Any, ...], targets: list[Array]) -> None:
    """Make the calls, or if values lead elsewhere, call the function whose work they are."""
    try:
        run_calls(calls)
    except Missed:
        for target, result in zip(targets, function(*args), strict=True):
            if target is not None:
                target[...] = result


def run_within(context: Callable[[], AbstractContextManager[Any]], calls: Calls) -> None:
    """Make the calls within a context."""
    with context():
        run_calls(calls)


def store(target: Array, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Write the result of a function that has no argument for it."""
    target[...] = function(*args, **kwargs)


def draw_into(target: Array, draw: Callable[[], Array]) -> None:
    """Write the next numbers of NumPy's stream."""
    target[...] = draw()


class Filling:
    """How cells get their numbers: those that are `given`, or else new ones. `numbers` are the last replay's so far."""

    def __init__(self) -> None:
        self.given: list[Numbers] | None = None
        self.numbers: list[Numbers] = []

    def __call__(self, array: Array, compute: Callable[[], Numbers]) -> None:
        numbers = compute() if self.given is None else self.given.pop(0)
        self.numbers.append(numbers)
        array[:] = numbers


def ask(array: Array, answer: bool, asker: str) -> None:
    """Leave the replay unless the one element of an array is true, or false, as it was."""
    if bool(array) is not answer:
        raise Missed(asker)


def ask_all(array: Array, answers: bytes, asker: str) -> None:
    """Leave the replay unless the elements of an array are what they were."""
    if array.tobytes() != answers:
        raise Missed(asker)


def set_state(errors: tuple[tuple[str, Any], ...], size: int) -> None:
    """Set how NumPy treats errors of arithmetic, and the size of the buffers of its ufuncs."""
    np.seterr(**dict(errors))
    np.setbufsize(size)


def store_all(targets: Sequence[Array], call: Callable[[], Sequence[Array]], name: str) -> None:
    """Write the results of a function that returns several; leave the replay if one has another shape, as of a rank."""
    for target, result in zip(targets, call(), strict=True):
        if target.shape != result.shape:
            raise Missed(name)
        target[...] = result
