"""Elementwise functions: torch's derivatives where a function has a kink."""

from __future__ import annotations

import math

from needle.autograd import TensorOp
from needle.backend import device_of, xp
from needle.kernels import SHARED_BYTES, elementwise
from needle.ops.arithmetic import add_scalar, cast, divide, mul_scalar, multiply, negate
from needle.ops.base import Elementwise
from needle.ops.logic import equal, greater, greater_equal, less, less_equal, where
from needle.ops.operand import constant, number, pair, tensor
from needle.ops.shape import sum_like

SMALL = 2048  # elements up to which NumPy's `maximum` with a number is faster than its `clip`, which is better at many

# ---- smooth functions ------------------------------------------------------------------------------------------------


class Exp(Elementwise):
    """e ** x."""

    reads_inputs, reads_output = False, True

    def compute(self, x):
        return xp(x).exp(x)

    def gradient(self, out_grad, node):
        return multiply(out_grad, node)


class Expm1(Elementwise):
    """e ** x - 1, exact where x is small."""

    reads_inputs, reads_output = False, True

    def compute(self, x):
        return xp(x).expm1(x)

    def gradient(self, out_grad, node):
        return multiply(out_grad, add_scalar(node, 1))


class Log(Elementwise):
    """The natural logarithm."""

    def compute(self, x):
        return xp(x).log(x)

    def gradient(self, out_grad, node):
        return divide(out_grad, node.inputs[0])


class ClampedLog(Elementwise):
    """The natural logarithm, at least -100; its derivative is that of log, but that at 1e-12 for x below (float16: at
    its smallest normal number, 2 ** -14)."""

    def compute(self, x):
        zero = x == 0
        return xp(x).where(zero, -100, xp(x).maximum(xp(x).log(xp(x).where(zero, 1, x)), -100))

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return divide(out_grad, clip(x, 1e-12 if x.dtype.itemsize > 2 else 2.0**-14))


class Sqrt(Elementwise):
    """The square root."""

    reads_inputs, reads_output = False, True

    def compute(self, x):
        return xp(x).sqrt(x)

    def gradient(self, out_grad, node):
        return divide(out_grad, mul_scalar(node, 2))


class Tanh(Elementwise):
    """The hyperbolic tangent."""

    reads_inputs, reads_output = False, True

    def compute(self, x):
        return xp(x).tanh(x)

    def gradient(self, out_grad, node):
        return multiply(out_grad, add_scalar(negate(multiply(node, node)), 1))


class Sigmoid(Elementwise):
    """1 / (1 + e ** -x), by way of e ** -|x|, which cannot overflow and keeps small results exact."""

    reads_inputs, reads_output = False, True

    def compute(self, x):
        small = xp(x).exp(xp(x).minimum(x, x * -1.0))
        return xp(x).maximum(small, x >= 0) / (small + 1)

    def gradient(self, out_grad, node):
        return multiply(out_grad, multiply(node, add_scalar(negate(node), 1)))


class Softplus(Elementwise):
    """log(1 + e ** x), which neither overflows nor vanishes before e ** x does."""

    def compute(self, x):
        return xp(x).log1p(xp(x).exp(-xp(x).abs(x))) + xp(x).maximum(x, 0)

    def gradient(self, out_grad, node):
        return multiply(out_grad, sigmoid(node.inputs[0]))


class EWisePow(Elementwise):
    """a ** b; the derivative in b is 0 where a is 0."""

    def compute(self, a, b):
        return a**b

    def gradient(self, out_grad, node):
        a, b = (cast(x, node.dtype) for x in node.inputs)  # the logarithm of int8 is of float16
        a_grad = b_grad = None
        if a.requires_grad:
            slope = where(equal(b, 0), 0.0, multiply(b, power(a, where(equal(b, 0), 1, add_scalar(b, -1)))))
            a_grad = sum_like(multiply(out_grad, slope), a)
        if b.requires_grad:
            slope = where(equal(a, 0), 0.0, multiply(power(a, b), log(where(equal(a, 0), 1, a))))
            b_grad = sum_like(multiply(out_grad, slope), b)
        return a_grad, b_grad


# ---- functions with kinks --------------------------------------------------------------------------------------------


class Abs(Elementwise):
    """The absolute value; its derivative at 0 is 0."""

    def compute(self, x):
        return xp(x).abs(x)

    def gradient(self, out_grad, node):
        return multiply(out_grad, sign(node.inputs[0]))


class Sign(Elementwise):
    """-1, 0 or 1; a constant for the graph."""

    differentiable = False

    def compute(self, x):
        return device_of(x).sign(x)


def _rectified(x, out=None):
    return x.clip(0, math.inf, out=out)  # NumPy's `maximum` with a number takes three times as long


def _gated(x, y, out=None):
    # NumPy multiplies by bools 20 times faster than it chooses with `where`.
    if out is None and y.strides == x.strides:
        return y * (x > 0)
    return xp(x).multiply(y, x > 0, out=xp(x).empty_like(x, dtype=y.dtype) if out is None else out)


class ReLU(Elementwise):
    """max(x, 0), whose zeros may have either sign; its derivative at 0 is 0."""

    def compute(self, x):
        if x.size < SMALL or x.dtype.kind != "f":
            return xp(x).maximum(x, 0)
        return _rectified(x) if x.nbytes < SHARED_BYTES else elementwise(_rectified, x)

    def gradient(self, out_grad, node):
        return _gate(out_grad, constant(node.inputs[0]))


class Gate(TensorOp):
    """Each element where x is positive, else 0, in the memory order of x, which a gradient need not come in."""

    reads_inputs = slice(1, None)

    def compute(self, y, x):
        return _gated(x, y) if x.nbytes < SHARED_BYTES else elementwise(_gated, x, y)

    def infer(self, y, x):
        return y

    def gradient(self, out_grad, node):
        return _gate(out_grad, node.inputs[1]), None


class Extremum(Elementwise):
    """The larger (or smaller) of a and b; where they are equal each takes half of the gradient."""

    def __init__(self, name):
        self.name = name

    def compute(self, a, b):
        return getattr(xp(a), self.name)(a, b)

    def gradient(self, out_grad, node):
        a, b = node.inputs
        wins = greater if self.name == "maximum" else less
        half = where(equal(a, b), mul_scalar(out_grad, 0.5), 0)
        return (
            sum_like(where(wins(a, b), out_grad, half), a) if a.requires_grad else None,
            sum_like(where(wins(b, a), out_grad, half), b) if b.requires_grad else None,
        )


class Clip(Elementwise):
    """x limited to [low, high]; the derivative is 1 within, the ends included."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def compute(self, x):
        return xp(x).clip(x, self.low, self.high)

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        if self.low is not None:
            out_grad = multiply(out_grad, greater_equal(x, self.low))
        if self.high is not None:
            out_grad = multiply(out_grad, less_equal(x, self.high))
        return out_grad


class HardTanh(Clip):
    """x limited to [low, high]; the derivative is 1 within, the ends excluded."""

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return multiply(out_grad, multiply(greater(x, self.low), less(x, self.high)))


# ---- functions -------------------------------------------------------------------------------------------------------

_relu, _gate = ReLU(), Gate()  # made once: they are in every network


def power(a, b):
    """a ** b for operands that broadcast."""
    return EWisePow()(*pair("power", a, b))


def maximum(a, b):
    """The larger of a and b; where they are equal each takes half of the gradient."""
    return Extremum("maximum")(*pair("maximum", a, b))


def minimum(a, b):
    """The smaller of a and b; where they are equal each takes half of the gradient."""
    return Extremum("minimum")(*pair("minimum", a, b))


def clip(x, low=None, high=None):
    """x limited to [low, high]; None leaves a side open."""
    low, high = (bound if bound is None else number("clip", bound) for bound in (low, high))
    if low is None and high is None:
        raise ValueError("clip: at least one bound must be given, but got low=None and high=None")
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip: low must not exceed high, but got {low} and {high}")
    return Clip(low, high)(tensor("clip", x))


def hardtanh(x, low=-1, high=1):
    """x limited to [low, high] as by `clip`, but with a derivative of 0 at the ends."""
    low, high = number("hardtanh", low), number("hardtanh", high)
    if low > high:
        raise ValueError(f"hardtanh: low must not exceed high, but got {low} and {high}")
    return HardTanh(low, high)(tensor("hardtanh", x))


def exp(x):
    """e ** x."""
    return Exp()(tensor("exp", x))


def expm1(x):
    """e ** x - 1, exact where x is small."""
    return Expm1()(tensor("expm1", x))


def clamped_log(x):
    """The natural logarithm of x, at least -100, with a derivative of at most 1e12."""
    return ClampedLog()(tensor("clamped_log", x))


def log(x):
    """The natural logarithm of x."""
    return Log()(tensor("log", x))


def sqrt(x):
    """The square root of x."""
    return Sqrt()(tensor("sqrt", x))


def abs(x):
    """The absolute value of x; its derivative at 0 is 0."""
    return Abs()(tensor("abs", x))


def sign(x):
    """-1, 0 or 1; a constant for the graph."""
    return Sign()(tensor("sign", x))


def tanh(x):
    """The hyperbolic tangent of x."""
    return Tanh()(tensor("tanh", x))


def sigmoid(x):
    """1 / (1 + e ** -x)."""
    return Sigmoid()(tensor("sigmoid", x))


def softplus(x):
    """log(1 + e ** x)."""
    return Softplus()(tensor("softplus", x))


def relu(x):
    """max(x, 0); its derivative at 0 is 0."""
    return _relu(tensor("relu", x))
