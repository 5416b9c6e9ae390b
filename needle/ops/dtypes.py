"""Dtypes of results: NumPy's promotion, but floats keep their dtype beside integers, as in torch."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor
from needle.backend import cpu

__all__ = ["DEFAULT_FLOAT", "check_fits", "holds", "promoted"]

DEFAULT_FLOAT = cpu().xp.dtype("float32")  # the dtype of floats that are computed from integers and bools


def promoted(op: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, cast where NumPy's promotion would find another dtype than this.

    Floats decide before integers and bools, and among floats those with axes before those of shape (). The result has
    the widest of the dtypes that decide.

    Raises `TypeError` for integers that no integer dtype holds: uint64 beside a signed one.
    """
    dtypes = {x.dtype for x in tensors}
    if len(dtypes) == 1:
        return tensors
    floats = [x for x in tensors if x.dtype.kind == "f"]
    decisive = {x.dtype for x in floats if x.ndim} or {x.dtype for x in floats} or dtypes
    dtype = cpu().xp.result_type(*decisive)
    if dtype.kind == "f" and not floats:
        raise TypeError(f"{op}: dtypes must have a common integer dtype, but got {' and '.join(map(str, dtypes))}")
    return tuple(x if x.dtype in decisive else Tensor._cast(x, dtype) for x in tensors)


def holds(dtype: Any, value: float) -> bool:
    """Whether a dtype holds a number of its kind; floats hold all."""
    if dtype.kind not in "iu":
        return True
    least = -(2 ** (8 * dtype.itemsize - 1)) if dtype.kind == "i" else 0
    return bool(least <= value < least + 2 ** (8 * dtype.itemsize))


def check_fits(op: str, name: str, value: float, dtype: Any) -> None:
    """Refuse a number outside the range of an integer dtype."""
    if not holds(dtype, value):
        info = cpu().xp.iinfo(dtype)
        raise ValueError(f"{op}: {name} must lie in [{info.min}, {info.max}], the range of {dtype}, but got {value}")
