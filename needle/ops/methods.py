"""The operators and methods of Tensor and TensorTuple, attached from one table.

`autograd` defines Tensor without knowing any op, and ops are built on tensors. This file connects the two.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from needle import check
from needle.autograd import Tensor, TensorTuple
from needle.backend import to_host
from needle.ops import (
    arithmetic,
    bits,
    copies,
    cumulative,
    elementwise,
    forms,
    hooks,
    in_place,
    index,
    linalg,
    logarithms,
    logic,
    order,
    powers,
    reduce,
    rounding,
    scatter,
    shape,
    special,
    statistics,
    tiling,
    transfer,
    triangle,
    trigonometry,
    tuples,
)
from needle.ops.operand import is_number, number, tensor


def _with_scalar(
    name: str, with_scalar: Callable[[Tensor, Any], Tensor], with_tensor: Callable[[Tensor, Any], Tensor]
) -> Callable[[Tensor, Any], Tensor]:
    """The operator that makes one node with a number and another with a tensor."""

    def method(x: Tensor, other: Any) -> Tensor:
        if isinstance(other, Tensor) or not is_number(other):  # the common case first
            return with_tensor(x, other)
        return with_scalar(x, other)

    method.__name__ = name
    return method


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    return lambda x, other: function(other, x)


def _subtract_scalar(x: Tensor, scalar: Any) -> Tensor:
    """x - scalar: one node, unless the dtype of x does not hold -scalar."""
    scalar = number("subtract", scalar)
    if x.dtype.kind in "ub" or not check.holds(x.dtype, -scalar):
        return arithmetic.subtract(x, scalar)
    return arithmetic.add_scalar(x, -scalar)


def _subtract_from_scalar(x: Tensor, scalar: Any) -> Tensor:
    """scalar - x."""
    if x.dtype.kind != "f":
        return arithmetic.subtract(scalar, x)
    return arithmetic.add_scalar(arithmetic.negate(x), scalar)


def _or_identity(function: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Any]:
    """The comparison `==` or `!=`; Python compares identity if the other operand is not an array."""

    def method(x: Tensor, other: Any) -> Any:
        if not isinstance(other, Tensor):
            try:
                other = tensor(function.__name__, other, x, fits=False)
            except TypeError:
                return NotImplemented
        return function(x, other)

    return method


def _contains(x: Tensor, element: Any) -> bool:
    """Whether an element of x equals `element`, which broadcasts."""
    return bool(to_host(logic.equal(x, element).array.any()))


# Files of which every function is a method.
_FILES = (bits, cumulative, logarithms, order, rounding, scatter, statistics, tiling, triangle, trigonometry)

TENSOR_METHODS: dict[str, Callable[..., Any]] = {
    "__add__": _with_scalar("__add__", arithmetic.add_scalar, arithmetic.add),
    "__radd__": _with_scalar("__radd__", arithmetic.add_scalar, _reflected(arithmetic.add)),
    "__sub__": _with_scalar("__sub__", _subtract_scalar, arithmetic.subtract),
    "__rsub__": _with_scalar("__rsub__", _subtract_from_scalar, _reflected(arithmetic.subtract)),
    "__mul__": _with_scalar("__mul__", arithmetic.mul_scalar, arithmetic.multiply),
    "__rmul__": _with_scalar("__rmul__", arithmetic.mul_scalar, _reflected(arithmetic.multiply)),
    "__truediv__": _with_scalar("__truediv__", arithmetic.divide_scalar, arithmetic.divide),
    "__rtruediv__": _reflected(arithmetic.divide),
    "__floordiv__": rounding.floor_divide,
    "__rfloordiv__": _reflected(rounding.floor_divide),
    "__mod__": rounding.remainder,
    "__rmod__": _reflected(rounding.remainder),
    "__pow__": _with_scalar("__pow__", arithmetic.power_scalar, powers.power),
    "__rpow__": _reflected(powers.power),
    "__matmul__": linalg.matmul,
    "__rmatmul__": _reflected(linalg.matmul),
    "__iadd__": in_place.assignment(operator.add),
    "__isub__": in_place.assignment(operator.sub),
    "__imul__": in_place.assignment(operator.mul),
    "__ifloordiv__": in_place.assignment(operator.floordiv),
    "__imod__": in_place.assignment(operator.mod),
    "__itruediv__": in_place.assignment(operator.truediv),
    "__ipow__": in_place.assignment(operator.pow),
    "__neg__": arithmetic.negate,
    "__pos__": lambda x: x,
    "__abs__": elementwise.abs,
    "__eq__": _or_identity(logic.equal),
    "__ne__": _or_identity(logic.not_equal),
    "__lt__": logic.less,
    "__le__": logic.less_equal,
    "__gt__": logic.greater,
    "__ge__": logic.greater_equal,
    "__and__": bits.bitwise_and,
    "__rand__": _reflected(bits.bitwise_and),
    "__or__": bits.bitwise_or,
    "__ror__": _reflected(bits.bitwise_or),
    "__xor__": bits.bitwise_xor,
    "__rxor__": _reflected(bits.bitwise_xor),
    "__invert__": bits.bitwise_not,
    "__contains__": _contains,
    "__getitem__": index.getitem,
    "__setitem__": in_place.setitem,
    "abs": elementwise.abs,
    "argmax": reduce.argmax,
    "astype": arithmetic.cast,
    "broadcast_to": shape.broadcast_to,
    "clamp": elementwise.clip,
    "clip": elementwise.clip,
    "det": linalg.det,
    "exp": elementwise.exp,
    "flip": shape.flip,
    "log": elementwise.log,
    "log_softmax": reduce.logsoftmax,
    "logsoftmax": reduce.logsoftmax,
    "logsumexp": reduce.logsumexp,
    "matmul": linalg.matmul,
    "max": reduce.max,
    "mean": reduce.mean,
    "min": reduce.min,
    "permute": shape.permute,
    "relu": elementwise.relu,
    "reshape": shape.reshape,
    "softmax": reduce.softmax,
    "sigmoid": elementwise.sigmoid,
    "sqrt": elementwise.sqrt,
    "sum": reduce.summation,
    "tanh": elementwise.tanh,
    "to": transfer.to,
    "transpose": shape.transpose,
    "erf": special.erf,
    "reciprocal": powers.reciprocal,
    "rsqrt": powers.rsqrt,
    "sign": elementwise.sign,
    "square": powers.square,
    "register_hook": hooks.register_hook,
    "repeat": tiling.repeat,
    **in_place.METHODS,
    **forms.METHODS,
    **{name: getattr(file, name) for file in _FILES for name in file.__all__},
}

TENSOR_TUPLE_METHODS: dict[str, Callable[..., Any]] = {
    "__getitem__": tuples.tuple_get_item,
    "__add__": tuples.tuple_add,
    "with_zeros": tuples.with_zeros,
}

Tensor._add, Tensor._clone, Tensor._cast = arithmetic.ADD, copies.CLONE, staticmethod(arithmetic.as_dtype)

for _class, _methods in ((Tensor, TENSOR_METHODS), (TensorTuple, TENSOR_TUPLE_METHODS)):
    for _name, _method in _methods.items():
        setattr(_class, _name, _method)
for _name, _method in forms.PROPERTIES.items():
    setattr(Tensor, _name, property(_method))
