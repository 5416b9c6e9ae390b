"""Whether ops record the graph: one switch per thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager, contextmanager
from typing import Any, TypeVar, overload

__all__ = ["enable_grad", "grad_mode", "is_grad_enabled", "mode", "no_grad"]


F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    recording = True


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether ops record the graph in this thread: True except within `no_grad`."""
    return mode.recording


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """Switch the recording of the graph in this thread on or off until the block ends."""
    before = mode.recording
    try:
        try:
            mode.recording = enabled
            yield
        finally:
            mode.recording = before
    finally:  # once more: an interrupt may come before the line above
        mode.recording = before


@overload
def no_grad() -> _GeneratorContextManager[None]: ...
@overload
def no_grad(function: F) -> F: ...
def no_grad(function: Any = None) -> Any:
    """Record no graph in this thread until the block ends; also a decorator: `@no_grad` or `@no_grad()`.

    Results are constants, whatever their inputs; other threads go on recording.

    >>> import needle as ndl
    >>> x = ndl.Tensor([2.0])
    >>> with ndl.no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    return grad_mode(False) if function is None else grad_mode(False)(function)


def enable_grad() -> _GeneratorContextManager[None]:
    """Record the graph in this thread until the block ends, also within `no_grad`; also a decorator."""
    return grad_mode(True)
