"""Kernels of a device: on its arrays they replace needle's kernels of the same name."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, cast

from needle.backend.device import device_of

__all__ = ["overridable"]

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Repeats the parameters of the wrapped function: this costs 0.15 µs per call, *args and **options 0.4.
_WRAPPER = """
def kernel({parameters}):
    _kernels = _device_of({first}).kernels
    if _kernels:
        return _kernels.get({name!r}, _function)({arguments})
    return _function({arguments})
"""


def overridable(function: Kernel) -> Kernel:
    """Decorate a kernel that devices may replace: `device.kernels[name]`, if it exists, is called instead.

    `name` is the function's name; the first argument, a raw array, selects the device. The replacement takes the same
    arguments and returns the same result. `__wrapped__` is the function itself, which must not take `*args`
    or `**options`.

    >>> import numpy as np
    >>> from needle.backend import cpu
    >>> @overridable
    ... def double(x, times=1):
    ...     return x * 2 ** times
    >>> cpu().kernels["double"] = lambda x, times: "faster"
    >>> double(np.ones(3), times=2)
    'faster'
    >>> del cpu().kernels["double"]
    >>> double(np.ones(3)).tolist()
    [2.0, 2.0, 2.0]
    """
    code = function.__code__
    if code.co_flags & 0b1100:  # CO_VARARGS, CO_VARKEYWORDS
        raise TypeError(f"overridable: a kernel must name its parameters, but got {function.__name__} with * or **")
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    parameters = ", ".join((*names[:count], *["*"] * (len(names) > count), *names[count:]))
    arguments = ", ".join((*names[:count], *(f"{name}={name}" for name in names[count:])))
    source = _WRAPPER.format(parameters=parameters, first=names[0], name=function.__name__, arguments=arguments)
    scope: dict[str, Any] = {"_function": function, "_device_of": device_of}
    exec(source, scope)
    kernel = scope["kernel"]
    kernel.__defaults__, kernel.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return cast(Kernel, update_wrapper(kernel, function))
