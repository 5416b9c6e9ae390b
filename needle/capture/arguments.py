"""Arguments and results of a function: the tensors in them, the form around these, and the devices of its work."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any

import numpy as np

from needle.autograd import Tensor
from needle.backend import CannotRecord, Device, device_of
from needle.graph import Value, tapped

__all__ = ["devices_of_work", "is_row", "kind_of", "replaced", "tapping", "tensors_in"]

tapping = RLock()  # one block of `tapped` at a time


def is_row(value: Any) -> bool:
    """Whether a value is a tuple, also a named one, or a list. Other subclasses may hold more than their entries."""
    return type(value) in (tuple, list) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a value, also within tuples, lists and dicts, in order; one that appears twice, twice."""
    if isinstance(value, Tensor):
        return [value]
    if is_row(value):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    if type(value) is dict:
        return [tensor for entry in value.values() for tensor in tensors_in(entry)]
    return []


def replaced(value: Any, replace: Callable[[Tensor], Any]) -> Any:
    """A value with the result of `replace` in the place of each tensor."""
    if isinstance(value, Tensor):
        return replace(value)
    if is_row(value):
        entries = [replaced(entry, replace) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if type(value) is dict:
        return {name: replaced(entry, replace) for name, entry in value.items()}
    return value


def kind_of(value: Any, seen: dict[int, int]) -> Hashable:
    """What a recording depends on: of tensors the form, of anything else the value; equal for equal kinds.

    `seen` numbers the tensors: one that comes twice is another case than two. Raises CannotRecord for what has no hash.
    """
    if isinstance(value, Tensor):
        number = seen.setdefault(id(value), len(seen))
        array = value.array
        return (number, array.shape, array.dtype, array.strides, value.device.name, value.requires_grad)
    if is_row(value):
        return (type(value), *[kind_of(entry, seen) for entry in value])
    if type(value) is dict:
        return (dict, *[(name, kind_of(entry, seen)) for name, entry in value.items()])
    try:
        hash(value)
    except TypeError:
        raise CannotRecord("capture", f"an argument of type {type(value).__name__}") from None
    if isinstance(value, (float, complex, np.inexact)):
        return type(value), repr(value)  # 0.0 == -0.0, and NaN differs from itself
    return type(value), value


@contextmanager
def devices_of_work() -> Iterator[dict[str, Device]]:
    """The devices, by name, of the arrays that this thread takes out of values or puts into them within the block."""
    devices: dict[str, Device] = {}
    thread = get_ident()

    def see(value: Value, array: Any) -> Any:
        if get_ident() == thread:
            for part in array if isinstance(array, tuple) else (array,):
                device = device_of(part)
                devices[device.name] = device
        return array

    with tapping, tapped(see, see, lambda value, grad: None):
        yield devices
