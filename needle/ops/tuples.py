"""Tuples of tensors as nodes of the graph."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp, TensorTuple, TensorTupleOp
from needle.backend import Device
from needle.kernels import Size
from needle.ops.arithmetic import add, add_scalar
from needle.ops.base import Array, Gradients
from needle.ops.operand import tensor

__all__ = ["MakeTensorTuple", "TensorTupleGetItem", "fused_add_scalars", "make_tuple", "tuple_get_item"]


class MakeTensorTuple(TensorTupleOp):
    """Several tensors as one tuple."""

    saved_inputs = ()

    def compute(self, *arrays: Array) -> tuple[Array, ...]:
        return tuple(array.copy("K") for array in arrays)  # one version counter cannot follow the memory of all inputs

    def infer(self, *specs: Any) -> Any:
        return specs

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        return tuple(pick(out_grad, i) if x.requires_grad else None for i, x in enumerate(node.inputs))


class _Gradients(MakeTensorTuple):
    """The same without copies: nothing writes into gradients, which may be large."""

    def compute(self, *arrays: Array) -> tuple[Array, ...]:
        return arrays


class TensorTupleGetItem(TensorOp):
    """One element of a tuple."""

    saved_inputs, is_view = (), True

    def __init__(self, index: int) -> None:
        self.index = index

    def compute(self, arrays: tuple[Array, ...]) -> Array:
        return arrays[self.index]

    def infer(self, specs: Any) -> Any:
        return specs[self.index]

    def gradient(self, out_grad: Tensor, node: Any) -> dict[int, Tensor]:
        return {self.index: out_grad}


def pick(x: TensorTuple, index: int) -> Tensor:
    """One element of a TensorTuple; for a tuple made of tensors, that very input."""
    if isinstance(x.op, MakeTensorTuple):
        element: Tensor = x.inputs[index]  # type: ignore[assignment]  # MakeTensorTuple has tensors as inputs
        return element
    return TensorTupleGetItem(index)(x)


def make_tuple(*tensors: TensorLike) -> TensorTuple:
    """The tensors, of any shapes and dtypes, as one TensorTuple. Numbers, lists and arrays become constants.

    Raises `TypeError` for anything else.
    """
    return MakeTensorTuple()(*(tensor("make_tuple", x) for x in tensors))


def tuple_get_item(x: TensorTuple, index: int) -> Tensor:
    """One element of a TensorTuple; for a tuple from `make_tuple`, that very input. -1 is the last.

    Raises `IndexError` for an index out of range, `TypeError` unless x is a TensorTuple and `index` an integer.
    """
    if type(index) is not int:
        index = check.integer("tuple_get_item", "index", index)
    length = len(check.instance("tuple_get_item", "x", x, TensorTuple))
    if not -length <= index < length:
        raise IndexError(f"tuple_get_item: index must lie in [{-length}, {length - 1}], but got {index}")
    return pick(x, index % length)


def fused_add_scalars(x: TensorLike, c0: float, c1: float) -> TensorTuple:
    """The tuple of x + c0 and x + c1, each `(*S)`. Dtypes and errors as in `add_scalar`."""
    return make_tuple(add_scalar(x, c0), add_scalar(x, c1))


def with_zeros(x: TensorTuple, parts: dict[int, Tensor]) -> TensorTuple:
    """A TensorTuple like x: the tensors in `parts` at their positions, zeros at the others."""
    device = x.device
    zeros = partial(_repeated_zero, device) if device.is_async else device.xp.zeros
    elements = (
        parts[i] if i in parts else Tensor.make_const(zeros(spec.shape, spec.dtype)) for i, spec in enumerate(x.spec)
    )
    return _Gradients()(*elements)


def _repeated_zero(device: Device, shape: Size, dtype: Any) -> Array:
    """Zeros that take no launch: one element, kept for all of them, as if repeated."""
    return device.xp.broadcast_to(_zero(device, dtype), shape)


@lru_cache(maxsize=64)
def _zero(device: Device, dtype: Any) -> Array:
    return device.filled((), 0, dtype)


def tuple_add(a: TensorTuple, b: TensorTuple) -> TensorTuple:
    """The elementwise sums of two TensorTuples of one length. Raises TypeError or ValueError for anything else."""
    check.instance("tuple_add", "b", b, TensorTuple)
    check.same("tuple_add", "length", len(a), len(b), ("a", "b"))
    return MakeTensorTuple()(*(add(x, y) for x, y in zip(a.tuple(), b.tuple(), strict=True)))
