"""Random tensors, drawn from NumPy's legacy global stream (`np.random.seed`) on the host, whatever the device."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, cpu
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

    `dtype` is a floating one. Rounding may return `high` itself, in float32 once in about 30 million draws.

    Raises `TypeError` if a size is not an integer, a bound not a number or `device` not a device; `ValueError` for a
    negative size.
    """
    low, high = number("rand", low), number("rand", high)
    array = as_device(device).uniform(as_shape("rand", shape), dtype)
    array *= high - low
    array += low
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

    Dtypes and errors as in `rand`.
    """
    mean, std = number("randn", mean), number("randn", std)
    array = as_device(device).normal(as_shape("randn", shape), dtype)
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
    return Tensor.make_const(device.asarray(mask, dtype), requires_grad)
