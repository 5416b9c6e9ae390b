"""The course's functions on NDArrays: new arrays, and the array methods by their name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from needle import check
from needle.backend import Device, DTypeLike, default_device, native
from needle.backend_ndarray.ndarray import NDArray

__all__ = ["array", "broadcast_to", "empty", "exp", "flip", "full", "log", "maximum", "reshape", "sum", "tanh"]


def array(a: Any, dtype: DTypeLike = "float32", device: Device | None = None) -> NDArray:
    """A compact copy of `a`: float32 unless another dtype is named, on the device of `a` unless another is named."""
    data = a.array if isinstance(a, NDArray) else a
    if device is None:
        device = a.device if isinstance(a, NDArray) else default_device()
    return NDArray.wrap(device.array(data, dtype))


def empty(shape: Sequence[int], dtype: DTypeLike = "float32", device: Device | None = None) -> NDArray:
    """An uninitialized array."""
    device = device or default_device()
    with device.current():
        return NDArray.wrap(device.xp.empty(tuple(shape), dtype=native(dtype)))


def full(
    shape: Sequence[int], fill_value: float, dtype: DTypeLike = "float32", device: Device | None = None
) -> NDArray:
    """An array with every element `fill_value`. Raises `ValueError` if `dtype` does not hold it."""
    check.filling("full", "fill_value", fill_value, native(dtype))
    return NDArray.wrap((device or default_device()).filled(tuple(shape), fill_value, dtype))


def broadcast_to(a: NDArray, new_shape: Sequence[int]) -> NDArray:
    """A view repeated up to `new_shape` by NumPy's rules."""
    return a.broadcast_to(new_shape)


def reshape(a: NDArray, new_shape: Sequence[int]) -> NDArray:
    """The elements in row-major order in another shape: a view if no copy is needed."""
    return a.reshape(new_shape)


def maximum(a: NDArray, b: NDArray | float) -> NDArray:
    """The elementwise maximum of two arrays, or of an array and a number."""
    return a.maximum(b)


def log(a: NDArray) -> NDArray:
    """The natural logarithm of each element."""
    return a.log()


def exp(a: NDArray) -> NDArray:
    """e to the power of each element."""
    return a.exp()


def tanh(a: NDArray) -> NDArray:
    """The hyperbolic tangent of each element."""
    return a.tanh()


def sum(a: NDArray, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> NDArray:
    """The sum over one axis, several, or all."""
    return a.sum(axis, keepdims)


def flip(a: NDArray, axes: int | Sequence[int] | None) -> NDArray:
    """A compact copy with the elements in reverse order along `axes`."""
    return a.flip(axes)
