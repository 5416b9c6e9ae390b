"""Arithmetic with NumPy's broadcasting and torch's dtypes.

A Python number adopts the dtype of the tensor beside it, unless its kind is higher: of bool, integer and float. Floats
keep their dtype beside integers; floats that are computed from integers are float32.
"""

from __future__ import annotations

import math
from typing import Any

from needle import tuning
from needle.autograd import Tensor, TensorLike, TensorOp, make_tensor
from needle.backend import DTypeLike, real_dtype, xp
from needle.graph import Spec
from needle.kernels import elementwise
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.operand import beside, floating, is_number, number, pair, tensor
from needle.ops.shape import sum_like

__all__ = [
    "AddScalar",
    "DivScalar",
    "EWiseAdd",
    "EWiseDiv",
    "EWiseMul",
    "MulScalar",
    "Negate",
    "PowerScalar",
    "add",
    "add_scalar",
    "divide",
    "divide_scalar",
    "mul_scalar",
    "multiply",
    "negate",
    "power_scalar",
    "subtract",
]


class EWiseAdd(Elementwise):
    """a + b."""

    saved_inputs = ()

    def compute(self, a: Array, b: Array) -> Array:
        return a + b if a.nbytes < tuning.PARALLEL_ELEMENTWISE_BYTES else elementwise(xp(a).add, a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        return (
            sum_like(out_grad, a) if a.requires_grad else None,
            sum_like(out_grad, b) if b.requires_grad else None,
        )


class AddScalar(Elementwise):
    """x + scalar."""

    saved_inputs = ()

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def compute(self, x: Array) -> Array:
        return x + self.scalar

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return out_grad


class EWiseMul(Elementwise):
    """a · b."""

    def compute(self, a: Array, b: Array) -> Array:
        return a * b if a.nbytes < tuning.PARALLEL_ELEMENTWISE_BYTES else elementwise(xp(a).multiply, a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        return (
            sum_like(MULTIPLY(out_grad, b), a) if a.requires_grad else None,
            sum_like(MULTIPLY(out_grad, a), b) if b.requires_grad else None,
        )


class MulScalar(Elementwise):
    """x · scalar."""

    saved_inputs = ()

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def compute(self, x: Array) -> Array:
        if x.dtype.char == "e":  # numbers over 65504 are infinite in float16
            return (x.astype("float32") * self.scalar).astype(x.dtype)
        return x * self.scalar

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)


class EWiseDiv(Elementwise):
    """a / b."""

    def compute(self, a: Array, b: Array) -> Array:
        return a / b

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        a, b = node.inputs
        quotient = DIVIDE(out_grad, b)
        return (
            sum_like(quotient, a) if a.requires_grad else None,
            sum_like(NEGATE(MULTIPLY(quotient, DIVIDE(a, b))), b) if b.requires_grad else None,
        )


class DivScalar(Elementwise):
    """x / scalar."""

    saved_inputs = ()

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def compute(self, x: Array) -> Array:
        if x.dtype.char == "e":  # counts over 65504 are infinite in float16
            return (x.astype("float32") / self.scalar).astype(x.dtype)
        return x / self.scalar

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)


class PowerScalar(Elementwise):
    """x ** scalar; x ** 0 has derivative 0 everywhere."""

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def compute(self, x: Array) -> Array:
        return x**self.scalar

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        (x,) = node.inputs
        if self.scalar == 0:
            return MulScalar(0)(out_grad)
        return MULTIPLY(out_grad, MulScalar(self.scalar)(PowerScalar(self.scalar - 1)(x)))


class Negate(Elementwise):
    """-x."""

    saved_inputs = ()

    def compute(self, x: Array) -> Array:
        return -x

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)


class Cast(TensorOp):
    """x in another dtype."""

    saved_inputs = ()

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = real_dtype("astype", dtype)

    def compute(self, x: Array) -> Array:
        return x.astype(self.dtype)

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape, self.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return out_grad  # backward casts every gradient to the dtype of its input


ADD, MULTIPLY, DIVIDE, NEGATE = EWiseAdd(), EWiseMul(), EWiseDiv(), Negate()



# ---- functions -------------------------------------------------------------------------------------------------------

# `make_tensor(ADD, operands)` is `ADD(*operands)` without re-packing the pair: 5 % of an op on few elements.


def add(a: TensorLike, b: TensorLike) -> Tensor:
    """a + b with NumPy's broadcasting: `(*A), (*B) -> (*C)`.

    Of two floats or two integers the wider dtype wins; a float tensor () does not widen one with axes. Integers and
    bools take the dtype of the floats beside them. A Python number adopts the tensor's dtype if that can hold its kind,
    and so does a list of floats; a float makes float32 of integers and bools, an integer makes int64 of bools. Integers
    wrap around; bools combine by "or".

    Raises `TypeError` for an operand that is not a tensor, array, list or number, or is on another device, and for
    uint64 with signed integers; `ValueError` for shapes that do not broadcast, and for a number that an integer dtype
    does not hold.
    """
    return make_tensor(ADD, pair("add", a, b))


def subtract(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b: `(*A), (*B) -> (*C)`, computed as a + (-b). Broadcasting, dtypes and errors as in `add`.

    Raises `TypeError` for two bools, too. Unsigned integers wrap around.
    """
    a, b = pair("subtract", a, b)
    if a.spec.dtype.kind == b.spec.dtype.kind == "b":
        raise TypeError("subtract: one operand must not be of bools, but got two; use not_equal")
    if b.spec.dtype != a.spec.dtype and b.dtype.kind != "f":
        b = cast(b, b.device.xp.result_type(a.dtype, b.dtype))  # -b may need a wider dtype: for uint8 it is 256 - b
    return make_tensor(ADD, (a, NEGATE(b)))


def multiply(a: TensorLike, b: TensorLike) -> Tensor:
    """a · b, element by element: `(*A), (*B) -> (*C)`; bools: "and". Broadcasting, dtypes and errors as in `add`."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) and _exceeds_float16(a, b):
        return as_dtype(multiply(*_widened(a, b)), "float16")
    return make_tensor(MULTIPLY, pair("multiply", a, b))


def divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b: `(*A), (*B) -> (*C)`. Broadcasting, dtypes and errors as in `add`; integers and bools divide in float32.

    Division by zero returns an infinity, 0 / 0 NaN.
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) and _exceeds_float16(a, b):
        return as_dtype(divide(*_widened(a, b)), "float16")
    a, b = pair("divide", a, b)
    return make_tensor(DIVIDE, (a, b) if a.spec.dtype.kind == "f" else (floating("divide", a), floating("divide", b)))


def _exceeds_float16(a: TensorLike, b: TensorLike) -> bool:
    """Whether one is a tensor of float16, and the other a number that would be infinite in it."""
    return any(
        isinstance(x, Tensor) and x.dtype.char == "e" and is_number(scalar) and 65504 < abs(scalar) < math.inf
        for x, scalar in ((a, b), (b, a))
    )


def _widened(*operands: Any) -> tuple[Any, ...]:
    return tuple(as_dtype(x, "float32") if isinstance(x, Tensor) else x for x in operands)


def negate(x: TensorLike) -> Tensor:
    """-x: `(*S) -> (*S)`, of the same dtype; unsigned integers wrap around. Raises `TypeError` for bools."""
    x = tensor("negate", x)
    if x.spec.dtype.kind == "b":
        raise TypeError("negate: x must be of numbers, but got dtype bool")
    return NEGATE(x)


def add_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x + scalar: `(*S) -> (*S)`, one op with a constant.

    A float tensor keeps its dtype, and so does an integer one if `scalar` is an integer; with a float it becomes
    float32. Bools become int64 or float32. `scalar` may also be a NumPy array with one element.

    Raises `TypeError` if `scalar` is not a number, `ValueError` if an integer does not fit the integer dtype of x.
    """
    x, scalar = _with_scalar("add_scalar", x, scalar)
    return AddScalar(scalar)(x)


def mul_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x · scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`."""
    x, scalar = _with_scalar("mul_scalar", x, scalar)
    return MulScalar(scalar)(x)


def divide_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x / scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`, but integers and bools become float32."""
    return DivScalar(number("divide_scalar", scalar))(floating("divide_scalar", x))


def power_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x ** scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`.

    x ** 0 is 1 with derivative 0 for every x. A negative x to a fractional power is NaN.

    Raises `ValueError` for integers to a negative integer power.
    """
    x, scalar = _with_scalar("power_scalar", x, scalar)
    if scalar < 0 and x.spec.dtype.kind != "f":
        raise ValueError(f"power_scalar: an integer exponent of integers must be at least 0, but got {scalar}")
    return PowerScalar(scalar)(as_dtype(x, "int64") if x.spec.dtype.kind == "b" else x)


def _with_scalar(op: str, x: TensorLike, scalar: Any) -> tuple[Tensor, Any]:
    """The operands of an op with a constant, in the dtype of their arithmetic."""
    x, scalar = tensor(op, x), number(op, scalar)
    return (x if x.spec.dtype.kind == "f" else beside(op, x, scalar)), scalar


def cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """x in another dtype: `(*S) -> (*S)`, x itself if it has that dtype.

    Fractions are cut off towards zero, integers wrap around, and floats overflow to infinity. An integer made from NaN
    or infinity is arbitrary. The gradient has the dtype of x. Integers and bools made from floats are constants.

    Raises `TypeError` unless `dtype` is one of real numbers or bools.
    """
    x = tensor("astype", x)
    return as_dtype(x, real_dtype("astype", dtype))


def as_dtype(x: Tensor, dtype: Any) -> Tensor:
    """`cast` of checked arguments."""
    if x.spec.dtype == dtype:
        return x
    y = Cast(dtype)(x)
    return y.detach() if x.dtype.kind == "f" and y.dtype.kind != "f" else y
