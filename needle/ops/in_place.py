"""Writes into the memory of tensors: no op, so no gradient knows of them; backward refuses values that they changed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import check_writable, cpu
from needle.grad_mode import mode
from needle.ops.index import elements, parsed_index, with_arrays
from needle.ops.operand import broadcast_shape, is_number, tensor

__all__ = ["assignment", "setitem"]


def setitem(x: Tensor, index: Any, value: TensorLike) -> None:
    """x[index] = value: write `value`, which broadcasts to x[index], into the memory of x, cast to its dtype.

    Views of x change with it. Index and its errors as in `getitem`.

    Raises `RuntimeError` if x or `value` requires grad outside of `no_grad`; `TypeError` if x cannot hold the kind of
    `value` (integers no floats), or they are on different devices; `ValueError` for a number that its dtype does not
    hold, and if `value` does not broadcast or the memory is read-only.
    """
    if is_number(value):
        check.filling("setitem", "value", value, x.dtype)
    value = tensor("setitem", value, x)
    if mode.recording and (x.requires_grad or value.requires_grad):
        name = "x" if x.requires_grad else "value"
        raise RuntimeError(f"setitem: x[index] = value must run under no_grad, but {name} requires grad")
    if not cpu().xp.can_cast(value.dtype, x.dtype, "same_kind"):
        raise TypeError(f"setitem: value must fit dtype {x.dtype}, but got {value.dtype}")
    if value.device != x.device:
        raise TypeError(f"setitem: x and value must be on one device, but got {x.device} and {value.device}")
    template, arrays = parsed_index("setitem", x, index)
    place = with_arrays(template, [entry.array for entry in arrays])
    array = x.array
    shape = elements("setitem", array, place).shape
    lead = max(0, value.ndim - len(shape))  # leading axes of size 1, which NumPy ignores
    if not {*value.shape[:lead]} <= {1} or broadcast_shape("setitem", value.shape[lead:], shape) != shape:
        raise ValueError(f"setitem: value must broadcast to x[index] of shape {shape}, but got shape {value.shape}")
    check_writable("setitem", "x", array)
    x.bump_version()
    array[place] = value.array


def assignment(function: Callable[[Any, Any], Any]) -> Callable[[Tensor, TensorLike], Tensor]:
    """An augmented assignment, x += y. It writes into x if x is a leaf that requires grad and nothing is recorded.

    Anywhere else x names a new tensor, as `x = x + y` does.
    """

    def assign(x: Tensor, y: TensorLike) -> Tensor:
        result: Tensor = function(x, y)
        if mode.recording or not x.requires_grad or x.op is not None:
            return result
        x[...] = result
        return x

    return assign


def fill_(x: Tensor, value: TensorLike) -> Tensor:
    """Write `value`, which broadcasts, into all of x, and return x. Errors as in `setitem`."""
    setitem(x, ..., value)
    return x


def _applied(function: Callable[[Any, Any], Any]) -> Callable[[Tensor, TensorLike], Tensor]:
    return lambda x, other: fill_(x, function(x, other))


METHODS: dict[str, Callable[..., Tensor]] = {
    "add_": _applied(operator.add),
    "copy_": fill_,
    "div_": _applied(operator.truediv),
    "fill_": fill_,
    "mul_": _applied(operator.mul),
    "sub_": _applied(operator.sub),
    "zero_": lambda x: fill_(x, 0),
}
