"""Arithmetic, with NumPy's broadcasting between tensors; Python numbers never promote a tensor's dtype."""

from __future__ import annotations

from needle.autograd import TensorOp, make_tensor
from needle.backend import xp
from needle.kernels import SHARED_BYTES, elementwise
from needle.lazy import Spec
from needle.ops.base import Elementwise
from needle.ops.operand import number, pair, tensor
from needle.ops.shape import sum_like


class EWiseAdd(Elementwise):
    """a + b."""

    reads_inputs = False

    def compute(self, a, b):
        return a + b if a.nbytes < SHARED_BYTES else elementwise(xp(a).add, a, b)

    def gradient(self, out_grad, node):
        a, b = node.inputs
        return (
            sum_like(out_grad, a) if a.requires_grad else None,
            sum_like(out_grad, b) if b.requires_grad else None,
        )


class AddScalar(Elementwise):
    """x + scalar."""

    reads_inputs = False

    def __init__(self, scalar):
        self.scalar = scalar

    def compute(self, x):
        return x + self.scalar

    def gradient(self, out_grad, node):
        return out_grad


class EWiseMul(Elementwise):
    """a * b."""

    def compute(self, a, b):
        return a * b if a.nbytes < SHARED_BYTES else elementwise(xp(a).multiply, a, b)

    def gradient(self, out_grad, node):
        a, b = node.inputs
        return (
            sum_like(multiply(out_grad, b), a) if a.requires_grad else None,
            sum_like(multiply(out_grad, a), b) if b.requires_grad else None,
        )


class MulScalar(Elementwise):
    """x * scalar."""

    reads_inputs = False

    def __init__(self, scalar):
        self.scalar = scalar

    def compute(self, x):
        return x * self.scalar

    def gradient(self, out_grad, node):
        return self(out_grad)


class EWiseDiv(Elementwise):
    """a / b."""

    def compute(self, a, b):
        return a / b

    def gradient(self, out_grad, node):
        a, b = node.inputs
        quotient = divide(out_grad, b)
        return (
            sum_like(quotient, a) if a.requires_grad else None,
            sum_like(negate(multiply(quotient, divide(a, b))), b) if b.requires_grad else None,
        )


class DivScalar(Elementwise):
    """x / scalar."""

    reads_inputs = False

    def __init__(self, scalar):
        self.scalar = scalar

    def compute(self, x):
        return x / self.scalar

    def gradient(self, out_grad, node):
        return self(out_grad)


class PowerScalar(Elementwise):
    """x ** scalar."""

    def __init__(self, scalar):
        self.scalar = scalar

    def compute(self, x):
        return x**self.scalar

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        if self.scalar == 0:
            return mul_scalar(out_grad, 0)
        return multiply(out_grad, mul_scalar(power_scalar(x, self.scalar - 1), self.scalar))


class Negate(Elementwise):
    """-x."""

    reads_inputs = False

    def compute(self, x):
        return -x

    def gradient(self, out_grad, node):
        return self(out_grad)


class Cast(TensorOp):
    """x in another dtype."""

    reads_inputs = False

    def __init__(self, dtype):
        self.dtype = dtype

    def compute(self, x):
        return x.astype(self.dtype)

    def infer(self, x):
        return Spec(x.shape, self.dtype)

    def gradient(self, out_grad, node):
        return out_grad  # backward brings every gradient to the dtype of its input


# ---- functions -------------------------------------------------------------------------------------------------------

# These are in every graph. They are made once, as they have no parameters, and given to `make_tensor` with a pair of
# operands: to call an op with them takes it apart and together again, a twentieth of an op on few elements.
_add, _multiply, _divide, _negate = EWiseAdd(), EWiseMul(), EWiseDiv(), Negate()


def add(a, b):
    """a + b for operands that broadcast."""
    return make_tensor(_add, pair("add", a, b))


def subtract(a, b):
    """a - b for operands that broadcast: the sum of a and -b."""
    a, b = pair("subtract", a, b)
    if b.spec.dtype != a.spec.dtype and b.dtype.kind != "f":
        b = cast(b, b.device.xp.result_type(a.dtype, b.dtype))  # -b may need more room than b: for uint8 it is 256 - b
    return make_tensor(_add, (a, _negate(b)))


def multiply(a, b):
    """a * b for operands that broadcast."""
    return make_tensor(_multiply, pair("multiply", a, b))


def divide(a, b):
    """a / b for operands that broadcast."""
    return make_tensor(_divide, pair("divide", a, b))


def negate(x):
    """-x."""
    return _negate(tensor("negate", x))


def add_scalar(x, scalar):
    """x + scalar; a Python number never promotes x."""
    return AddScalar(number("add_scalar", scalar))(tensor("add_scalar", x))


def mul_scalar(x, scalar):
    """x * scalar; a Python number never promotes x."""
    return MulScalar(number("mul_scalar", scalar))(tensor("mul_scalar", x))


def divide_scalar(x, scalar):
    """x / scalar; a Python number never promotes x."""
    return DivScalar(number("divide_scalar", scalar))(tensor("divide_scalar", x))


def power_scalar(x, scalar):
    """x ** scalar; x ** 0 is 1 with derivative 0 for every x."""
    return PowerScalar(number("power_scalar", scalar))(tensor("power_scalar", x))


def cast(x, dtype):
    """x in another dtype; the gradient comes back in the dtype of x. Integers made of floats are constants."""
    x = tensor("astype", x)
    dtype = _real_dtype("astype", dtype, x)
    if x.dtype == dtype:
        return x
    y = Cast(dtype)(x)
    return y.detach() if x.dtype.kind == "f" and y.dtype.kind != "f" else y


def _real_dtype(op, dtype, x):
    """The dtype of that name, of real numbers or bools."""
    try:
        found = x.device.xp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "fiub":
        raise TypeError(f"{op}: dtype must be one of real numbers or bools, but got {dtype!r}")
    return found
