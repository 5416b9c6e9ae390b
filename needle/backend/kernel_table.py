"""Kernels of a device: on its arrays they replace needle's kernels of the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from needle.backend.device import device_of

__all__ = ["kernel_providers", "overridable"]

P = ParamSpec("P")
R = TypeVar("R")

# Each returns kernels by name. GPUs add them to their table when they are first used: nothing is imported before.
kernel_providers: list[Callable[[], Mapping[str, Callable[..., Any]]]] = []


def overridable(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a kernel that devices may replace: `device.kernels[name]`, if it exists, is called instead.

    `name` is the function's name; the first argument, a raw array, tells the device. A replacement takes the same
    arguments and returns the same result. `__wrapped__` is the function itself.

    >>> import numpy as np
    >>> from needle.backend import cpu
    >>> @overridable
    ... def double(x):
    ...     return x * 2
    >>> cpu().kernels["double"] = lambda x: "faster"
    >>> double(np.ones(3))
    'faster'
    >>> del cpu().kernels["double"]
    >>> double(np.ones(3)).tolist()
    [2.0, 2.0, 2.0]
    """
    name = function.__name__

    @wraps(function)
    def kernel(*arguments: P.args, **options: P.kwargs) -> R:
        kernels = device_of(arguments[0]).kernels
        chosen: Callable[P, R] = kernels.get(name, function) if kernels else function
        return chosen(*arguments, **options)

    return kernel
