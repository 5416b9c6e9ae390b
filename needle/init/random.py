"""Random tensors, drawn from NumPy's legacy global stream (`np.random.seed`) on the host, whatever the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, cpu, drawn, real_dtype, xp
from needle.init.fill import as_device, as_shape
from needle.ops.operand import number
from needle.words import RangeWords, respelled

__all__ = ["rand", "rand_like", "randb", "randint", "randn", "randn_like", "randperm"]


def rand(
    *shape: int | Sequence[int],
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
    array = as_device(device).uniform(as_shape("rand", shape), check.float_dtype("rand", real_dtype("rand", dtype)))
    if (low, high) != (0, 1):
        array *= high - low
        array += low
        if low < high:
            xp(array).minimum(array, _below(high, array), out=array)
    return Tensor.make_const(array, requires_grad)


def randn(
    *shape: int | Sequence[int],
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
    array = as_device(device).normal(as_shape("randn", shape), check.float_dtype("randn", real_dtype("randn", dtype)))
    array *= std
    array += mean
    return Tensor.make_const(array, requires_grad)


def rand_like(
    x: Tensor, *, device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """`rand` in the shape of x `(*S)`; by default also its dtype and device."""
    return rand(x.shape, device=device or x.device, dtype=dtype or x.dtype, requires_grad=requires_grad)


def randn_like(
    x: Tensor, *, device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """`randn` in the shape of x `(*S)`; by default also its dtype and device."""
    return randn(x.shape, device=device or x.device, dtype=dtype or x.dtype, requires_grad=requires_grad)


def randint(
    low: int, high: int | Sequence[int] | None = None, shape: int | Sequence[int] = (), *,
    device: Device | None = None, dtype: DTypeLike = "int64", requires_grad: bool = False,
    **words: Unpack[RangeWords],
) -> Tensor:  # fmt: skip
    """Integers in [low, high), of `shape`: one `np.random.randint`. Also `randint(high, shape)` and `randint(high)`.

    `size` is torch's and NumPy's word for `shape`.

    Raises `TypeError` unless the bounds are integers, `ValueError` unless low is less than high and `dtype`
    holds all numbers between.
    """
    if words:
        given = {"high": high, "shape": shape, "device": device, "dtype": dtype, "requires_grad": requires_grad}
        return respelled(randint, words, low, **given)
    if isinstance(high, (tuple, list)):
        return randint(0, low, high, device=device, dtype=dtype, requires_grad=requires_grad)
    if high is None:
        low, high = 0, low
    least, end = check.integer("randint", "low", low), check.integer("randint", "high", high)
    if least >= end:
        raise ValueError(f"randint: low must be less than high, but got {low} and {high}")
    result = real_dtype("randint", dtype)
    check.fits("randint", "numbers", least, result if result.kind in "iu" else np.dtype("int64"), end - 1)
    size = as_shape("randint", (shape,))
    kind: Any = "uint64" if end > 2**63 else "int64"
    draws = drawn(lambda: np.asarray(np.random.randint(least, end, size, kind)))
    return Tensor.make_const(as_device(device).asarray(draws, result), requires_grad)


def randperm(
    n: int, *, device: Device | None = None, dtype: DTypeLike = "int64", requires_grad: bool = False
) -> Tensor:
    """The integers below n, shuffled: one `np.random.permutation`. Raises `TypeError` unless n is an integer."""
    dtype = real_dtype("randperm", dtype)
    count = check.integer("randperm", "n", n, least=0)
    draws = drawn(lambda: np.random.permutation(count))
    check.fits("randperm", "numbers", max(n - 1, 0), dtype)
    return Tensor.make_const(as_device(device).asarray(draws, dtype), requires_grad)


def randb(
    *shape: int | Sequence[int], p: float = 0.5,
    device: Device | None = None, dtype: DTypeLike = "bool", requires_grad: bool = False,
) -> Tensor:  # fmt: skip
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


def _below(number: float, array: Any) -> Any:
    """The largest element of the array's dtype that is less than a number, as a scalar."""
    scalar = array.dtype.type(number)
    return scalar if float(scalar) < number else cpu().xp.nextafter(scalar, -array.dtype.type("inf"))
