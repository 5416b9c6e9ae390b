"""Random tensors, drawn from NumPy's legacy global stream (`np.random.seed`) on the host, whatever the device."""

from __future__ import annotations

import math
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, cpu, real_dtype, xp
from needle.init.fill import as_device, as_shape
from needle.ops.operand import number

__all__ = ["rand", "randb", "randn"]


def rand(
    *shape: int,
    low: float = 0.0,
    high: float = 1.0,
    device: Device | None = None,
    dtype: DTypeLike = "float32",
    requires_grad: bool = False,
) -> Tensor:
    """Uniform draws in [low, high) of `shape`: one `np.random.rand(*shape)`, rounded to `dtype`, then scaled.

    A draw that rounds to `high` becomes the number before it. If `low` equals `high`, so do all draws.

    Raises `TypeError` if a size is not an integer, a bound not a number, `dtype` not a floating one or `device` not a
    device; `ValueError` for a negative size, and unless low <= high are finite.
    """
    low, high = _finite("rand", "low", low), _finite("rand", "high", high)
    if low > high:
        raise ValueError(f"rand: low must not exceed high, but got {low} and {high}")
    array = as_device(device).uniform(as_shape("rand", shape), _float_dtype("rand", dtype))
    if (low, high) != (0, 1):
        array *= high - low
        array += low
        if low < high:
            xp(array).minimum(array, _below(high, array), out=array)
    return Tensor.make_const(array, requires_grad)


def randn(
    *shape: int,
    mean: float = 0.0,
    std: float = 1.0,
    device: Device | None = None,
    dtype: DTypeLike = "float32",
    requires_grad: bool = False,
) -> Tensor:
    """Normal draws of `shape`: one `np.random.randn(*shape)`, rounded to `dtype`, then times `std` plus `mean`.

    Errors as in `rand`; `ValueError` unless `mean` and `std` are finite and std >= 0.
    """
    mean, std = _finite("randn", "mean", mean), _finite("randn", "std", std)
    if std < 0:
        raise ValueError(f"randn: std must be at least 0, but got {std}")
    array = as_device(device).normal(as_shape("randn", shape), _float_dtype("randn", dtype))
    array *= std
    array += mean
    return Tensor.make_const(array, requires_grad)


def randb(
    *shape: int, p: float = 0.5, device: Device | None = None, dtype: DTypeLike = "bool", requires_grad: bool = False
) -> Tensor:
    """True with probability p, of `shape`: where one `np.random.rand(*shape)` is at most p.

    In another dtype than bool: 1 and 0. Raises `ValueError` if p is not in [0, 1], `TypeError` if it is not a number;
    for sizes and `device` as `rand` does.
    """
    p = check.number("randb", "p", p, least=0, most=1)
    device = as_device(device)
    draws = cpu().uniform(as_shape("randb", shape), "float64")
    mask = device.asarray(draws <= p)  # compared on the host, so that bools are transferred, not floats
    return Tensor.make_const(device.asarray(mask, real_dtype("randb", dtype)), requires_grad)


def _finite(op: str, name: str, value: float) -> Any:
    """A finite number."""
    value = number(op, value)
    if not math.isfinite(value):
        raise ValueError(f"{op}: {name} must be finite, but got {value}")
    return value


def _float_dtype(op: str, dtype: DTypeLike) -> Any:
    """A floating dtype."""
    result = real_dtype(op, dtype)
    if result.kind != "f":
        raise TypeError(f"{op}: dtype must be a floating one, but got {result}")
    return result


def _below(number: float, array: Any) -> Any:
    """The largest element of the array's dtype that is less than a number, as a scalar."""
    scalar = array.dtype.type(number)
    return scalar if float(scalar) < number else cpu().xp.nextafter(scalar, -array.dtype.type("inf"))
