"""Comparisons, and the choice between two values by a condition."""

from __future__ import annotations

from needle.autograd import Tensor, TensorOp
from needle.backend import cpu, xp
from needle.lazy import Spec
from needle.ops.base import Elementwise
from needle.ops.operand import broadcast_shape, pair, tensor
from needle.ops.shape import sum_like


class Where(Elementwise):
    """a where the condition holds, else b."""

    def compute(self, condition, a, b):
        return xp(a).where(condition, a, b)

    def gradient(self, out_grad, node):
        condition, a, b = node.inputs
        return (
            None,
            sum_like(where(condition, out_grad, 0), a) if a.requires_grad else None,
            sum_like(where(condition, 0, out_grad), b) if b.requires_grad else None,
        )


class Compare(TensorOp):
    """A comparison by its NumPy name; the result is of bools and a constant for the graph."""

    differentiable = False

    def __init__(self, name):
        self.name = name

    def compute(self, a, b):
        return getattr(xp(a), self.name)(a, b)

    def infer(self, a, b):
        return Spec(broadcast_shape(self.name, a.shape, b.shape), cpu().xp.dtype(bool))


def where(condition, a, b):
    """a where `condition` holds, else b: three operands that broadcast; no gradient flows into the condition."""
    condition = tensor("where", condition)
    if condition.dtype.kind != "b":
        raise TypeError(f"where: condition must be of bools, but got dtype {condition.dtype}")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = tensor("where", a)
    a, b = pair("where", a, b)
    broadcast_shape("where", condition.shape, a.shape, b.shape)
    return Where()(condition, a, b)


def equal(a, b):
    """Whether a == b, element by element; `==` on tensors is identity."""
    return Compare("equal")(*pair("equal", a, b))


def not_equal(a, b):
    """Whether a != b, element by element."""
    return Compare("not_equal")(*pair("not_equal", a, b))


def less(a, b):
    """Whether a < b, element by element."""
    return Compare("less")(*pair("less", a, b))


def less_equal(a, b):
    """Whether a <= b, element by element."""
    return Compare("less_equal")(*pair("less_equal", a, b))


def greater(a, b):
    """Whether a > b, element by element."""
    return Compare("greater")(*pair("greater", a, b))


def greater_equal(a, b):
    """Whether a >= b, element by element."""
    return Compare("greater_equal")(*pair("greater_equal", a, b))
