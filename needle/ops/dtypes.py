"""Dtypes of results: NumPy's promotion, but floats keep their dtype beside integers, as in torch."""

from __future__ import annotations

from needle.autograd import Tensor
from needle.backend import cpu

__all__ = ["DEFAULT_FLOAT", "promoted"]

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
