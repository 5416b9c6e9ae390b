"""Kernels that a device brings along: on its arrays they replace needle's own kernels of the same name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from needle.backend.device import device_of

__all__ = ["overridable"]

Result = TypeVar("Result")


def overridable(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a kernel that devices may replace: `device.kernels[name]`, if it exists, is called instead.

    `name` is the function's name; the device is that of the first argument, a raw array. A replacement takes the same
    arguments by position and returns the same result. `__wrapped__` is the function itself.

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
    def kernel(array: Any, *others: Any) -> Result:
        kernels = device_of(array).kernels
        chosen: Callable[..., Result] = kernels.get(name, function) if kernels else function
        return chosen(array, *others)

    return kernel
