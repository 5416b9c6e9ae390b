"""Tensors of known values: constants, ranges, triangles, one-hot rows."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Unpack

from needle import check, ops
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike, default_device, real_dtype
from needle.ops.operand import number
from needle.words import RangeWords, respelled

__all__ = [
    "arange",
    "constant",
    "eye",
    "full",
    "full_like",
    "linspace",
    "one_hot",
    "ones",
    "ones_like",
    "tensor",
    "tril",
    "zeros",
    "zeros_like",
]


def constant(
    *shape: int | Sequence[int], c: float = 1.0,
    device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of `shape`, sizes one by one or in a tuple, with every element `c`, cast to `dtype`.

    Raises `TypeError` if a size is not an integer, `c` not a number, `dtype` not one of real numbers or bools or
    `device` not a device; `ValueError` for a negative size, or if `dtype` does not hold `c`.
    """
    return _filled("constant", shape, number("constant", c), device, dtype, requires_grad)


def ones(
    *shape: int | Sequence[int], device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False
) -> Tensor:
    """A tensor of `shape` filled with ones. Errors as in `constant`."""
    return _filled("ones", shape, 1, device, dtype, requires_grad)


def zeros(
    *shape: int | Sequence[int], device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False
) -> Tensor:
    """A tensor of `shape` filled with zeros. Errors as in `constant`."""
    return _filled("zeros", shape, 0, device, dtype, requires_grad)


def ones_like(
    x: Tensor, *, device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the shape of x `(*S)`; by default also its dtype and device. Errors as in `constant`."""
    return _filled("ones_like", x.shape, 1, device or x.device, dtype or x.dtype, requires_grad)


def zeros_like(
    x: Tensor, *, device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the shape of x `(*S)`; by default also its dtype and device. Errors as in `constant`."""
    return _filled("zeros_like", x.shape, 0, device or x.device, dtype or x.dtype, requires_grad)


def full(
    shape: int | Sequence[int], fill_value: float, *,
    device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of `shape` with every element `fill_value`: float32 for a float, int64 for an integer, bool for a bool.

    Errors as in `constant`.
    """
    value = number("full", fill_value)
    shape = as_shape("full", (shape,))
    return _filled("full", shape, value, device, dtype or dtype_of(value), requires_grad)


def full_like(
    x: Tensor, fill_value: float, *,
    device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`fill_value` in the shape of x `(*S)`; by default also its dtype and device. Errors as in `constant`."""
    value = number("full_like", fill_value)
    return _filled("full_like", x.shape, value, device or x.device, dtype or x.dtype, requires_grad)


def eye(
    rows: int, columns: int | None = None, *,
    device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones where row and column are equal, zeros elsewhere: (rows, columns), by default square. Errors as in `tril`."""
    rows = check.integer("eye", "rows", rows, least=0)
    columns = rows if columns is None else check.integer("eye", "columns", columns, least=0)
    device = as_device(device)
    with device.current():
        return Tensor.make_const(device.xp.eye(rows, columns, dtype=real_dtype("eye", dtype)), requires_grad)


def linspace(
    start: float, stop: float, num: int = 50, *,
    device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False,
    **words: Unpack[RangeWords],
) -> Tensor:  # fmt: skip
    """`num` numbers from `start` to `stop`, both included, at equal distances: (num,).

    `steps` is torch's word for `num`. Raises `TypeError` unless the bounds are numbers and `num` is an integer,
    `ValueError` if `num` is negative, a bound is not finite, or `dtype` does not hold it.
    """
    if words:
        given = {"stop": stop, "num": num, "device": device, "dtype": dtype, "requires_grad": requires_grad}
        return respelled(linspace, words, start, **given)
    num = check.integer("linspace", "num", num, least=0)
    _check_finite("linspace", start=start, stop=stop)
    dtype = real_dtype("linspace", dtype)
    check.filling("linspace", "numbers", min(start, stop), dtype, max(start, stop))
    device = as_device(device)
    with device.current():
        return Tensor.make_const(device.xp.linspace(start, stop, num, dtype=dtype), requires_grad)


def tensor(
    data: TensorLike, *, device: Device | None = None, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """`Tensor(data)` as torch makes it: it requires no gradient by default, and floats of Python become float32.

    Arrays keep their dtype. Raises what `Tensor` raises.

    >>> tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    made = Tensor(data, device=device, dtype=dtype, requires_grad=requires_grad)
    if dtype is None and made.dtype == "float64" and not hasattr(data, "dtype"):
        return Tensor(made, dtype="float32", requires_grad=requires_grad)
    return made


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    *,
    device: Device | None = None,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
    **words: Unpack[RangeWords],
) -> Tensor:
    """The numbers start, start + step, … below `stop`, as one axis; `arange(n)` counts from 0 to n - 1.

    A negative `step` counts down; if no number lies between, the result has shape (0,). The dtype is int64 by default,
    or float32 unless all numbers are integers. `end` is torch's word for `stop`.

    Raises `TypeError` if an argument is not a number, `ValueError` if `step` is 0, a number is not finite, or
    `dtype` does not hold the results.

    >>> arange(3)
    Tensor([0 1 2])
    >>> arange(1, 2, 0.25)
    Tensor([1.   1.25 1.5  1.75])
    """
    if words:
        given = {"stop": stop, "step": step, "device": device, "dtype": dtype, "requires_grad": requires_grad}
        return respelled(arange, words, start, **given)
    start, stop = (0, start) if stop is None else (start, stop)
    _check_finite("arange", start=start, stop=stop, step=step)
    if step == 0:
        raise ValueError(f"arange: step must not be 0, but got {step}")
    if dtype is None:
        dtype = "int64" if all(isinstance(value, numbers.Integral) for value in (start, stop, step)) else "float32"
    dtype = real_dtype("arange", dtype)
    if (count := math.ceil((stop - start) / step)) > 0:
        ends = sorted((start, start + (count - 1) * step))
        check.fits("arange", "numbers", ends[0], dtype, ends[1])
    device = as_device(device)
    with device.current():
        return Tensor.make_const(device.xp.arange(start, stop, step, dtype=dtype), requires_grad)


def tril(
    rows: int,
    columns: int,
    diagonal: int = 0,
    *,
    device: Device | None = None,
    dtype: DTypeLike = "float32",
    requires_grad: bool = False,
) -> Tensor:
    """A lower triangle: (rows, columns), ones where column - row <= `diagonal`, zeros elsewhere.

    With dtype `"bool"` it is a causal mask: query `row` may attend to keys up to `row + diagonal`.

    Raises `TypeError` or `ValueError` if a size is not a non-negative integer or `diagonal` is not an integer.

    >>> tril(2, 3, dtype="int64").numpy().tolist()
    [[1, 0, 0], [1, 1, 0]]
    """
    rows = check.integer("tril", "rows", rows, least=0)
    columns = check.integer("tril", "columns", columns, least=0)
    diagonal = max(-rows, min(check.integer("tril", "diagonal", diagonal), columns))
    device = as_device(device)
    with device.current():
        return Tensor.make_const(device.xp.tri(rows, columns, diagonal, dtype=real_dtype("tril", dtype)), requires_grad)


def one_hot(
    n: int, i: TensorLike, *, device: Device | None = None, dtype: DTypeLike = "float32", requires_grad: bool = False
) -> Tensor:
    """One-hot rows: integers i `(*I)` in [0, n), of any dtype -> `(*I, n)`, ones at the integers, zeros elsewhere.

    The result is on the device of `i` unless `device` is passed.

    Raises `TypeError` if n is not an integer, i are bools or `device` is no Device; `ValueError` if n is below 1 or one
    of i is another number (checked on the CPU only).
    """
    device = device if device is None else as_device(device)
    encoded = ops.one_hot(n, i if isinstance(i, Tensor) else Tensor(i, device=device), dtype)
    return Tensor.make_const((device or encoded.device).asarray(encoded.array), requires_grad)


def _check_finite(op: str, **numbers: float) -> None:
    """Refuse infinities and NaN; integers may have any size."""
    for name, value in numbers.items():
        if type(value) is not int and not math.isfinite(check.number(op, name, value)):
            raise ValueError(f"{op}: {name} must be finite, but got {value}")


def dtype_of(value: float) -> str:
    """The dtype of a new tensor that holds a Python number: float32, int64 or bool."""
    return "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"


def _filled(
    op: str, shape: tuple[Any, ...], value: float, device: Device | None, dtype: DTypeLike, requires_grad: bool
) -> Tensor:
    """A tensor of `shape` with every element `value`."""
    dtype = real_dtype(op, dtype)
    check.filling(op, "the value", value, dtype)
    return Tensor.make_const(as_device(device).filled(as_shape(op, shape), value, dtype), requires_grad)


def as_device(device: Device | None) -> Device:
    """`device`, or the default one."""
    if device is None:
        return default_device()
    check.instance("init", "device", device, Device)
    return device


def as_shape(op: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes of a new tensor, given one by one or as one tuple, as non-negative integers."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(check.integer(op, "shape", n, least=0) for n in shape)
