"""Arithmetic with NumPy's broadcasting and promotion.

A Python number adopts the dtype of the tensor beside it, unless its kind is higher: of bool, integer and float. So
float32 stays float32, and int8 + 2.5 is float64.
"""

from __future__ import annotations

from typing import Any

from needle import tuning
from needle.autograd import Tensor, TensorLike, TensorOp, make_tensor
from needle.backend import DTypeLike, xp
from needle.graph import Spec
from needle.kernels import elementwise
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.operand import number, pair, tensor
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

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

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

    The dtype is NumPy's promotion of both: int32 and float32 make float64. A Python number adopts the tensor's dtype if
    that can hold its kind; a float promotes integers and bools to float64, an integer promotes bools to int64. Integers
    wrap around; bools combine by "or".

    Raises `TypeError` for an operand that is not a tensor, array, list or number, or is on another device; `ValueError`
    for shapes that do not broadcast.
    """
    return make_tensor(ADD, pair("add", a, b))


def subtract(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b: `(*A), (*B) -> (*C)`, computed as a + (-b). Broadcasting, dtypes and errors as in `add`.

    Raises `TypeError` for two bools, too. Unsigned integers wrap around.
    """
    a, b = pair("subtract", a, b)
    if b.spec.dtype != a.spec.dtype and b.dtype.kind != "f":
        b = cast(b, b.device.xp.result_type(a.dtype, b.dtype))  # -b may need a wider dtype: for uint8 it is 256 - b
    return make_tensor(ADD, (a, NEGATE(b)))


def multiply(a: TensorLike, b: TensorLike) -> Tensor:
    """a · b, element by element: `(*A), (*B) -> (*C)`; bools: "and". Broadcasting, dtypes and errors as in `add`."""
    return make_tensor(MULTIPLY, pair("multiply", a, b))


def divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b: `(*A), (*B) -> (*C)`. Broadcasting, dtypes and errors as in `add`; integers and bools divide in float64.

    Division by zero returns an infinity, 0 / 0 NaN.
    """
    return make_tensor(DIVIDE, pair("divide", a, b))


def negate(x: TensorLike) -> Tensor:
    """-x: `(*S) -> (*S)`, of the same dtype; unsigned integers wrap around. Raises `TypeError` for bools."""
    return NEGATE(tensor("negate", x))


def add_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x + scalar: `(*S) -> (*S)`, one op with a constant.

    A float tensor keeps its dtype, and so does an integer one if `scalar` is an integer; with a float it becomes
    float64. Bools become int64 or float64. `scalar` may also be a NumPy array with one element.

    Raises `TypeError` if `scalar` is not a number, `OverflowError` if an integer does not fit the integer dtype of x.
    """
    return AddScalar(number("add_scalar", scalar))(tensor("add_scalar", x))


def mul_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x · scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`."""
    return MulScalar(number("mul_scalar", scalar))(tensor("mul_scalar", x))


def divide_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x / scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`, but integers and bools become float64."""
    return DivScalar(number("divide_scalar", scalar))(tensor("divide_scalar", x))


def power_scalar(x: TensorLike, scalar: float) -> Tensor:
    """x ** scalar: `(*S) -> (*S)`. Dtypes and errors as in `add_scalar`, but bools to an integer become int8.

    x ** 0 is 1 with derivative 0 for every x. A negative x to a fractional power is NaN.

    Raises `ValueError` for integers to a negative integer power.
    """
    return PowerScalar(number("power_scalar", scalar))(tensor("power_scalar", x))


def cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """x in another dtype: `(*S) -> (*S)`, x itself if it has that dtype.

    Fractions are cut off towards zero, integers wrap around, and floats overflow to infinity. An integer made from NaN
    or infinity is arbitrary. The gradient has the dtype of x. Integers and bools made from floats are constants.

    Raises `TypeError` unless `dtype` is one of real numbers or bools.
    """
    x = tensor("astype", x)
    return as_dtype(x, _real_dtype("astype", dtype, x))


def as_dtype(x: Tensor, dtype: Any) -> Tensor:
    """`cast` of checked arguments."""
    if x.spec.dtype == dtype:
        return x
    y = Cast(dtype)(x)
    return y.detach() if x.dtype.kind == "f" and y.dtype.kind != "f" else y


def _real_dtype(op: str, dtype: Any, x: Tensor) -> Any:
    """The dtype of that name; TypeError unless it is one of real numbers or bools."""
    try:
        result = x.device.xp.dtype(dtype)
    except TypeError:
        result = None
    if result is None or result.kind not in "fiub":
        raise TypeError(f"{op}: dtype must be one of real numbers or bools, but got {dtype!r}")
    return result
