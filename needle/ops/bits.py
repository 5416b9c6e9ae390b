"""Logic of truth values, bits of integers, and tests for NaN and infinity."""

from __future__ import annotations

from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import cpu, xp
from needle.graph import Spec
from needle.ops.base import Array, Elementwise
from needle.ops.logic import Compare
from needle.ops.operand import pair, tensor

__all__ = [
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "isfinite",
    "isinf",
    "isnan",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
]


class Predicate(TensorOp):
    """A truth value for each element, by the NumPy function of that name; a constant."""

    differentiable = False

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, x: Array) -> Array:
        return getattr(xp(x), self.name)(x)

    def infer(self, x: Spec) -> Spec:
        return Spec(x.shape, cpu().xp.dtype(bool))


class Bitwise(Elementwise):
    """Bit by bit, by the NumPy function of that name; a constant."""

    differentiable = False

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, *arrays: Array) -> Array:
        return getattr(xp(arrays[0]), self.name)(*arrays)


class Shift(Elementwise):
    """Bits moved to the left or to the right; a constant. By a number outside [0, bits), the sign's bit alone stays."""

    differentiable = False

    def __init__(self, is_left: bool) -> None:
        self.is_left = is_left

    def compute(self, x: Array, n: Array) -> Array:
        namespace, bits = xp(x), 8 * x.dtype.itemsize
        inside = (n >= 0) & (n < bits)
        count = namespace.where(inside, n, 0)
        if self.is_left:
            return namespace.where(inside, namespace.left_shift(x, count), 0)
        signs = namespace.right_shift(x, bits - 1) if x.dtype.kind == "i" else 0
        return namespace.where(inside, namespace.right_shift(x, count), signs)


# ---- functions -------------------------------------------------------------------------------------------------------


def logical_and(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether both a and b are true, that is not 0: `(*A), (*B) -> (*C)`, bools; a constant. NaN is true.

    Broadcasting and errors as in `add`.
    """
    return Compare("logical_and")(*pair("logical_and", a, b))


def logical_or(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a or b is true: as `logical_and`."""
    return Compare("logical_or")(*pair("logical_or", a, b))


def logical_xor(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether one of a and b is true, but not both: as `logical_and`."""
    return Compare("logical_xor")(*pair("logical_xor", a, b))


def logical_not(x: TensorLike) -> Tensor:
    """Whether x is 0 or False: `(*S) -> (*S)`, bools; a constant."""
    return Predicate("logical_not")(tensor("logical_not", x))


def isnan(x: TensorLike) -> Tensor:
    """Whether an element is NaN: `(*S) -> (*S)`, bools; a constant, False for integers and bools."""
    return Predicate("isnan")(tensor("isnan", x))


def isinf(x: TensorLike) -> Tensor:
    """Whether an element is infinite, of either sign: as `isnan`."""
    return Predicate("isinf")(tensor("isinf", x))


def isfinite(x: TensorLike) -> Tensor:
    """Whether an element is neither NaN nor infinite: `(*S) -> (*S)`, bools; a constant, True for integers, bools."""
    return Predicate("isfinite")(tensor("isfinite", x))


def bitwise_and(a: TensorLike, b: TensorLike) -> Tensor:
    """a & b, bit by bit; of bools: whether both are true. `(*A), (*B) -> (*C)`; a constant.

    Broadcasting and dtypes as in `add`. Raises `TypeError` for floats, and what `add` raises.
    """
    return Bitwise("bitwise_and")(*_integers("bitwise_and", *pair("bitwise_and", a, b)))


def bitwise_or(a: TensorLike, b: TensorLike) -> Tensor:
    """a | b, bit by bit; of bools: whether one is true. As `bitwise_and`."""
    return Bitwise("bitwise_or")(*_integers("bitwise_or", *pair("bitwise_or", a, b)))


def bitwise_xor(a: TensorLike, b: TensorLike) -> Tensor:
    """a ^ b, bit by bit; of bools: whether they differ. As `bitwise_and`."""
    return Bitwise("bitwise_xor")(*_integers("bitwise_xor", *pair("bitwise_xor", a, b)))


def bitwise_not(x: TensorLike) -> Tensor:
    """~x, all bits inverted; of bools: whether x is false. `(*S) -> (*S)`, of the same dtype; a constant.

    Raises `TypeError` for floats.
    """
    return Bitwise("invert")(*_integers("bitwise_not", tensor("bitwise_not", x)))


def bitwise_left_shift(a: TensorLike, b: TensorLike) -> Tensor:
    """The bits of a moved b places to the left, a · 2 ** b: `(*A), (*B) -> (*C)`; a constant.

    Bits that leave the dtype are lost. If b is negative or at least the number of bits, the result is 0. Broadcasting
    and dtypes as in `add`. Raises `TypeError` for floats and bools, and what `add` raises.
    """
    return _shifted("bitwise_left_shift", a, b, is_left=True)


def bitwise_right_shift(a: TensorLike, b: TensorLike) -> Tensor:
    """The bits of a moved b places to the right, a // 2 ** b: the sign stays. As `bitwise_left_shift`.

    If b is negative or at least the number of bits, the result is -1 for negative a, else 0.
    """
    return _shifted("bitwise_right_shift", a, b, is_left=False)


def _shifted(op: str, a: TensorLike, b: TensorLike, *, is_left: bool) -> Tensor:
    a, b = _integers(op, *pair(op, a, b))
    if "b" in (a.dtype.kind, b.dtype.kind):
        raise TypeError(f"{op}: operands must be of integers, but got dtypes {a.dtype} and {b.dtype}")
    return Shift(is_left)(a, b)


def _integers(op: str, *operands: Tensor) -> tuple[Tensor, ...]:
    """The operands, which must be of integers or bools."""
    for x in operands:
        if x.dtype.kind == "f":
            raise TypeError(f"{op}: operands must be of integers or bools, but got dtype {x.dtype}")
    return operands
