"""NumPy as traced arrays see it: functions that make new arrays tell the tracer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from needle.backend.plan.traced import Traced, bare, current_tracer

__all__ = ["NAMESPACE"]

CONSTANT = ("ones", "ones_like", "zeros", "zeros_like")
FILLED = ("arange", "eye", "identity", "linspace", "tri")
UNFILLED = ("empty", "empty_like")


class Namespace:
    """NumPy, with other functions for new arrays."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        setattr(self, name, found)
        return found

    def asarray(self, data: Any, dtype: Any = None, **options: Any) -> Any:
        if isinstance(data, Traced):
            return data if dtype is None else data.astype(dtype, copy=False)
        array = np.asarray(data, dtype, **options)
        tracer = current_tracer()  # numbers and lists of the step itself are constants
        return tracer.kept(array) if tracer is not None and isinstance(data, np.ndarray) else array

    def ascontiguousarray(self, data: Any, dtype: Any = None) -> Any:
        array = self.asarray(data, dtype)
        return array if array.flags.c_contiguous and array.ndim else array.copy(order="C").reshape(array.shape or (1,))

    def array(self, data: Any, dtype: Any = None, copy: bool = True, order: Any = "K", **options: Any) -> Any:
        """A copy, even of what is on the host: the step may write into it. Each replay reads a host array anew."""
        tracer = current_tracer()
        if tracer is not None and isinstance(data, np.ndarray):
            data = tracer.kept(data)
        if isinstance(data, Traced):
            return data.astype(data.dtype if dtype is None else dtype, order=order)
        return _made("array", False, data, dtype, copy=copy, order=order, **options)

    def full(self, shape: Any, fill_value: Any, dtype: Any = None, **options: Any) -> Any:
        if dtype is None:
            dtype = np.asarray(bare(fill_value)).dtype
        return self._full(_made("empty", True, shape, dtype, **options), fill_value)

    def full_like(self, a: Any, fill_value: Any, dtype: Any = None, **options: Any) -> Any:
        return self._full(_made("empty_like", True, a, dtype, **options), fill_value)

    def _full(self, array: Any, value: Any) -> Any:
        array[...] = value
        return array


def _made(name: str, empty: bool, *args: Any, **kwargs: Any) -> Any:
    """Call a function that makes an array, and note that each replay must fill it so."""
    tracer = current_tracer()
    array = getattr(np, name)(*bare(args), **bare(kwargs))
    if tracer is None:
        return array
    traced = tracer.fresh(array)
    if not empty:
        target = tracer.plain(traced)
        if name in CONSTANT and array.size:
            tracer.note([target], target.fill, array.flat[0])
        else:
            tracer.note([target], np.copyto, target, array)
    return traced


def _maker(name: str, empty: bool) -> Any:
    def make(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _made(name, empty, *args, **kwargs)

    return make


for _name in CONSTANT + FILLED:
    setattr(Namespace, _name, _maker(_name, False))
for _name in UNFILLED:
    setattr(Namespace, _name, _maker(_name, True))


def _as_strided(x: Any, shape: Any = None, strides: Any = None, **options: Any) -> Any:
    tracer = current_tracer()
    view = np.lib.stride_tricks.as_strided(bare(x), shape, strides, **options)
    return view if tracer is None else tracer.view_of(np.asarray(view), x)


NAMESPACE: Any = Namespace()
NAMESPACE.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
