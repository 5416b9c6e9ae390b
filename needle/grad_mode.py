"""Modes of a thread: whether ops record the graph, who watches them, and whether they are only outlined."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager, contextmanager
from typing import Any, Protocol, TypeVar, overload

__all__ = ["Watcher", "enable_grad", "grad_mode", "is_grad_enabled", "mode", "no_grad", "watch", "watching"]


F = TypeVar("F", bound=Callable[..., Any])


class Watcher(Protocol):
    """What sees the work of a thread; errors that it raises end that work."""

    def made(self, value: Any, op: Any, inputs: Any) -> None:
        """`op` has made a value from `inputs`."""

    def passed(self, node: Any, grad: Any, x_grads: Any) -> None:
        """Backward has passed a node: from its gradient it got those of its inputs, None where none flows."""


class _Mode(threading.local):
    recording = True
    outlining = False  # needle.outline: functions check no values
    watchers: tuple[Watcher, ...] = ()


mode = _Mode()
watching: set[Watcher] = set()  # the watchers of all threads: a set that is empty costs an op next to nothing


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


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Let `watcher`, too, see the ops of this thread until the block ends."""
    before = mode.watchers
    try:
        try:
            watching.add(watcher)
            mode.watchers = (*before, watcher)
            yield
        finally:
            mode.watchers = before
            watching.discard(watcher)
    finally:  # once more: an interrupt may come before the lines above
        mode.watchers = before
        watching.discard(watcher)
