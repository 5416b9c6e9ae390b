"""Tuples of tensors as nodes of the graph."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorOp, TensorTuple, TensorTupleOp
from needle.lazy import spec_of
from needle.ops.arithmetic import add, add_scalar
from needle.ops.operand import tensor


class MakeTensorTuple(TensorTupleOp):
    """Several tensors as one tuple."""

    reads_inputs = False

    def compute(self, *arrays):
        return arrays

    def infer(self, *specs):
        return specs

    def gradient(self, out_grad, node):
        return tuple(out_grad[i] if x.requires_grad else None for i, x in enumerate(node.inputs))


class TensorTupleGetItem(TensorOp):
    """One element of a tuple."""

    reads_inputs, is_view = False, True

    def __init__(self, index):
        self.index = index

    def compute(self, arrays):
        return arrays[self.index]

    def infer(self, specs):
        return specs[self.index]

    def gradient(self, out_grad, node):
        return {self.index: out_grad}


def make_tuple(*tensors):
    """The tensors as one TensorTuple."""
    return MakeTensorTuple()(*(tensor("make_tuple", x) for x in tensors))


def tuple_get_item(x, index):
    """One element of a TensorTuple; of one just made by `make_tuple`, that very input."""
    if type(index) is not int:
        index = check.integer("tuple_get_item", "index", index)
    length = len(check.instance("tuple_get_item", "x", x, TensorTuple))
    if not -length <= index < length:
        raise IndexError(f"tuple_get_item: index must lie in [{-length}, {length - 1}], but got {index}")
    index %= length
    if isinstance(x.op, MakeTensorTuple):
        return x.inputs[index]
    return TensorTupleGetItem(index)(x)


def fused_add_scalars(x, c0, c1):
    """The tuple of x + c0 and x + c1."""
    return make_tuple(add_scalar(x, c0), add_scalar(x, c1))


def with_zeros(x, parts):
    """A TensorTuple shaped as x of the tensors in `parts`, position -> tensor, and zeros in the other positions."""
    zeros, specs = x.device.xp.zeros, enumerate(spec_of(x))
    return make_tuple(*(parts[i] if i in parts else Tensor.make_const(zeros(*spec)) for i, spec in specs))


def tuple_add(a, b):
    """The sums of two TensorTuples of one length, element by element."""
    check.instance("tuple_add", "b", b, TensorTuple)
    check.same("tuple_add", "length", len(a), len(b), ("a", "b"))
    return make_tuple(*(add(x, y) for x, y in zip(a.tuple(), b.tuple(), strict=True)))
