"""Arrays that tell a tracer of each NumPy call that makes or writes memory.

`Traced` is NumPy's array in all that does not need values. Views are views. Calls that compute go to the tracer of this
thread; without one, they are NumPy's on plain arrays. What would bring values to Python is refused, but for the truth
of one element: `bool` is a question whose answer the tracer notes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from needle.backend.recording import noting

__all__ = ["Traced", "bare", "current_tracer"]


def current_tracer() -> Any:
    """The tracer that notes the calls of this thread, or None."""
    recorder = noting.recorder
    return recorder if getattr(recorder, "traces", False) else None


def bare(value: Any) -> Any:
    """A value with plain arrays in the place of traced ones, also within tuples, lists and dicts."""
    if isinstance(value, Traced):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(map(bare, value))
    if isinstance(value, dict):
        return {name: bare(entry) for name, entry in value.items()}
    return value


class Traced(np.ndarray):
    """An array whose calls are noted. `lease` is the traced array of which it is a view, None if of none."""

    lease: Traced | None = None

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, Traced):
            self.lease = source if source.lease is None else source.lease

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        tracer = current_tracer()
        if tracer is None:
            options = bare(options) if out is None else bare({**options, "out": out})
            return getattr(ufunc, method)(*bare(inputs), **options)
        return tracer.ufunc(ufunc, method, inputs, out, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        tracer = current_tracer()
        if tracer is None:
            return function(*bare(args), **bare(kwargs))
        return tracer.function(function, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        tracer = current_tracer()
        return bare(self)[bare(index)] if tracer is None else tracer.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        tracer = current_tracer()
        if tracer is None:
            bare(self)[bare(index)] = bare(value)
        else:
            tracer.setitem(self, index, value)

    def __bool__(self) -> bool:
        tracer = current_tracer()
        return bool(bare(self)) if tracer is None else tracer.truth(self)


def _noted(name: str, changes: bool) -> Callable[..., Any]:
    """A method that the tracer calls and notes; one that changes its array, or one that makes another."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = current_tracer()
        if tracer is None:
            return getattr(bare(self), name)(*bare(args), **bare(kwargs))
        return (tracer.change if changes else tracer.method)(name, self, args, kwargs)

    return method


def _refused(name: str, op: str, cause: str) -> Callable[..., Any]:
    """A method that cannot be recorded."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = current_tracer()
        if tracer is not None:
            tracer.refuse(op, cause)
        return getattr(bare(self), name)(*bare(args), **kwargs)

    return method


NEW = """argmax argmin argpartition argsort astype choose copy cumprod cumsum diagonal dot flatten ravel repeat reshape
round searchsorted take trace"""
CHANGING = "fill partition put sort"
READING = """item tolist tobytes tofile dump dumps __float__ __int__ __index__ __complex__ __contains__ __repr__ __str__
__format__ __reduce__ __reduce_ex__ __deepcopy__ __copy__"""
UNSIZED = "compress nonzero"
UNUSUAL = "byteswap resize setfield"

for _name in NEW.split():
    setattr(Traced, _name, _noted(_name, changes=False))
for _name in CHANGING.split():
    setattr(Traced, _name, _noted(_name, changes=True))
for _name in READING.split():
    setattr(Traced, _name, _refused(_name, _name.strip("_"), "a value read on the host"))
for _name in UNSIZED.split():
    setattr(Traced, _name, _refused(_name, _name, "a result whose shape depends on values"))
for _name in UNUSUAL.split():
    setattr(Traced, _name, _refused(_name, _name, "a change of an array's form"))
