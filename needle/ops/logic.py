"""Comparisons, and the choice between two values by a condition."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import cpu, xp
from needle.graph import Spec
from needle.ops.base import Array, Elementwise, Gradients
from needle.ops.operand import broadcast_shape, pair, scalar_like, tensor
from needle.ops.shape import sum_like

__all__ = [
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "not_equal",
    "where",
]


class Where(Elementwise):
    """a where the condition holds, else b."""

    def compute(self, condition: Array, a: Array, b: Array) -> Array:
        return xp(a).where(condition, a, b)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        condition, a, b = node.inputs
        zero = scalar_like(0, out_grad)
        return (
            None,
            sum_like(WHERE(condition, out_grad, zero), a) if a.requires_grad else None,
            sum_like(WHERE(condition, zero, out_grad), b) if b.requires_grad else None,
        )


class Compare(TensorOp):
    """A comparison by its NumPy name. The result holds bools and is a constant."""

    differentiable, is_elementwise = False, True

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, a: Array, b: Array) -> Array:
        return getattr(xp(a), self.name)(a, b)

    def infer(self, a: Any, b: Any) -> Spec:
        return Spec(broadcast_shape(self.name, a.shape, b.shape), cpu().xp.dtype(bool))


WHERE, EQUAL, NOT_EQUAL = Where(), Compare("equal"), Compare("not_equal")
LESS, LESS_EQUAL = Compare("less"), Compare("less_equal")
GREATER, GREATER_EQUAL = Compare("greater"), Compare("greater_equal")


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """a where `condition` holds, else b: `(*M), (*A), (*B) -> (*C)`; all three broadcast. Dtypes as in `add`.

    No gradient flows into the condition, nor into the operand not chosen. To keep NaN and infinity out of a gradient,
    choose a safe operand before the function: 0 · NaN is NaN.

    >>> from needle import Tensor, log
    >>> x = Tensor([0.0, 1.0])
    >>> where(greater(x, 0), log(where(greater(x, 0), x, 1.0)), 0.0).sum().backward()
    >>> x.grad
    Tensor([0. 1.], requires_grad=True)

    Raises `TypeError` unless `condition` has dtype bool; `ValueError` for shapes that do not broadcast.
    """
    condition = tensor("where", condition)
    if condition.dtype.kind != "b":
        raise TypeError(f"where: condition must be of bools, but got dtype {condition.dtype}")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = tensor("where", a, condition)
    a, b = pair("where", a, b)
    broadcast_shape("where", condition.shape, a.shape, b.shape)
    return WHERE(condition, a, b)


def equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a == b, element by element: `(*A), (*B) -> (*C)`, bools; a constant.

    Operands are compared in the dtype that `add` finds, integers with every integer. NaN equals nothing. Broadcasting
    and errors as in `add`. The operators `==` and `!=` do the same; hash and keys of a dict go by identity.
    """
    return EQUAL(*pair("equal", a, b, fits=False))


def not_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a != b, element by element: not `equal`, so True for NaN."""
    return NOT_EQUAL(*pair("not_equal", a, b, fits=False))


def less(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a < b, element by element: as `equal`; False for NaN."""
    return LESS(*pair("less", a, b, fits=False))


def less_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a <= b, element by element: as `equal`; False for NaN."""
    return LESS_EQUAL(*pair("less_equal", a, b, fits=False))


def greater(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a > b, element by element: as `equal`; False for NaN."""
    return GREATER(*pair("greater", a, b, fits=False))


def greater_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Whether a >= b, element by element: as `equal`; False for NaN."""
    return GREATER_EQUAL(*pair("greater_equal", a, b, fits=False))
