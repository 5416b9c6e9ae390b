"""The operators of NDArray, on two arrays or on an array and a number, which never promotes the array."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from needle import check

__all__ = ["arithmetic", "as_floats", "comparison", "matched"]


def arithmetic(function: Callable[[Any, Any], Any], *, reflected: bool = False) -> Any:
    """The operator; of dtypes as in `matched`. Integers divide in float32."""

    def method(self: Any, other: Any) -> Any:
        operand = self._operand(other)
        if operand is NotImplemented:
            return NotImplemented
        array, operand = matched(self.array, operand)
        if function is operator.truediv:
            array = as_floats(array)
            operand = operand if isinstance(operand, (int, float)) else as_floats(operand)
        return self._new(function(operand, array) if reflected else function(array, operand))

    return method


def comparison(function: Callable[[Any, Any], Any]) -> Any:
    """The comparison, as ones and zeros; a number is first rounded to the dtype of a floating array."""

    def method(self: Any, other: Any) -> Any:
        operand = self._operand(other)
        if operand is NotImplemented:
            return NotImplemented
        floating = self.dtype.kind == "f"
        if floating and isinstance(operand, (int, float)):
            operand = self.dtype.type(operand)
        return self._new(function(self.array, operand).astype(self.dtype if floating else "float32"))

    return method


def matched(array: Any, operand: Any) -> tuple[Any, Any]:
    """An array and the other operand of its arithmetic: floats keep their dtype beside integers, as in `needle.ops`.

    Raises ValueError for a number that an integer dtype does not hold.
    """
    if isinstance(operand, float):
        return as_floats(array), operand
    if isinstance(operand, int):
        check.fits("NDArray", "a number", operand, array.dtype)
    elif (array.dtype.kind == "f") != (operand.dtype.kind == "f"):
        dtype = array.dtype if array.dtype.kind == "f" else operand.dtype
        return array.astype(dtype, copy=False), operand.astype(dtype, copy=False)
    return array, operand


def as_floats(array: Any) -> Any:
    """An array as floats: of integers and bools in float32."""
    return array if array.dtype.kind == "f" else array.astype("float32")
