"""New arrays: the course's functions, and those that each device has for itself.

Random numbers come from NumPy's legacy global stream (`np.random.seed`), drawn on the host for every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle.backend.device import BackendDevice, default_device
from needle.backend_ndarray.ndarray import NDArray

# ---- on a device -----------------------------------------------------------------------------------------------------


def _empty(device: BackendDevice, shape: Any, dtype: Any = "float32") -> NDArray:
    """An uninitialised array of that shape."""
    return NDArray.wrap(device.xp.empty(shape, dtype=dtype))


def _full(device: BackendDevice, shape: Any, fill_value: Any, dtype: Any = "float32") -> NDArray:
    """An array of that shape, every element `fill_value`."""
    return NDArray.wrap(device.xp.full(shape, fill_value, dtype=dtype))


def _zeros(device: BackendDevice, *shape: int, dtype: Any = "float32") -> NDArray:
    """An array of zeros."""
    return NDArray.wrap(device.xp.zeros(shape, dtype=dtype))


def _ones(device: BackendDevice, *shape: int, dtype: Any = "float32") -> NDArray:
    """An array of ones."""
    return NDArray.wrap(device.xp.ones(shape, dtype=dtype))


def _rand(device: BackendDevice, *shape: int, dtype: Any = "float32") -> NDArray:
    """Uniform draws in [0, 1): one `np.random.rand(*shape)`."""
    return NDArray.wrap(device.asarray(np.asarray(np.random.rand(*shape), dtype=dtype)))


def _randn(device: BackendDevice, *shape: int, dtype: Any = "float32") -> NDArray:
    """Standard normal draws: one `np.random.randn(*shape)`."""
    return NDArray.wrap(device.asarray(np.asarray(np.random.randn(*shape), dtype=dtype)))


def _one_hot(device: BackendDevice, n: int, i: Any, dtype: Any = "float32") -> NDArray:
    """(\\*I) integers in [0, n) -> (\\*I, n): ones at the indices, zeros elsewhere."""
    indices = device.asarray(i.array if isinstance(i, NDArray) else i)
    return NDArray.wrap((indices[..., None] == device.xp.arange(n)).astype(dtype))


for _method in (_empty, _full, _zeros, _ones, _rand, _randn, _one_hot):
    setattr(BackendDevice, _method.__name__[1:], _method)


# ---- the course's functions ------------------------------------------------------------------------------------------


def array(a: Any, dtype: Any = "float32", device: BackendDevice | None = None) -> NDArray:
    """A compact copy of `a`, of float32 unless another dtype is named."""
    data = a.array if isinstance(a, NDArray) else a
    if device is None:
        device = a.device if isinstance(a, NDArray) else default_device()
    return NDArray.wrap(device.array(data, dtype))


def empty(shape: Sequence[int], dtype: Any = "float32", device: BackendDevice | None = None) -> NDArray:
    """An uninitialised array of that shape."""
    return (device or default_device()).empty(tuple(shape), dtype)


def full(
    shape: Sequence[int], fill_value: float, dtype: Any = "float32", device: BackendDevice | None = None
) -> NDArray:
    """An array of that shape, every element `fill_value`."""
    return (device or default_device()).full(tuple(shape), fill_value, dtype)


def broadcast_to(a: NDArray, new_shape: Sequence[int]) -> NDArray:
    """A view of `a` repeated up to `new_shape`."""
    return a.broadcast_to(new_shape)


def reshape(a: NDArray, new_shape: Sequence[int]) -> NDArray:
    """The elements of `a` in another shape."""
    return a.reshape(new_shape)


def maximum(a: NDArray, b: Any) -> NDArray:
    """The larger of each element of `a` and of `b`, an array or a number."""
    return a.maximum(b)


def log(a: NDArray) -> NDArray:
    """The natural logarithm."""
    return a.log()


def exp(a: NDArray) -> NDArray:
    """e ** a."""
    return a.exp()


def tanh(a: NDArray) -> NDArray:
    """The hyperbolic tangent."""
    return a.tanh()


def sum(a: NDArray, axis: Any = None, keepdims: bool = False) -> NDArray:
    """The sum over an axis, several, or all."""
    return a.sum(axis, keepdims)


def flip(a: NDArray, axes: Any) -> NDArray:
    """A compact copy with the elements in reverse order along `axes`."""
    return a.flip(axes)
