"""Ops that make one tensor of several, or several of one: stack, split, concatenate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp, TensorTuple, TensorTupleOp
from needle.backend import cpu, device_of, xp
from needle.graph import Spec
from needle.kernels import AT_ONCE
from needle.ops.base import Array, Gradients
from needle.ops.dtypes import promoted
from needle.ops.operand import tensor
from needle.ops.shape import Pad
from needle.ops.tuples import pick
from needle.words import AxisWords, respelled

__all__ = ["Split", "Stack", "concatenate", "split", "stack"]


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    """Arrays joined along an axis; of many on a GPU, some at a time: nothing is uploaded."""
    if device_of(arrays[0]).is_async:
        while len(arrays) > AT_ONCE:
            groups = (arrays[i : i + AT_ONCE] for i in range(0, len(arrays), AT_ONCE))
            arrays = [xp(group[0]).concatenate(group, axis) for group in groups]
    return xp(arrays[0]).concatenate(arrays, axis)


class Stack(TensorOp):
    """Tensors of the same shape along a new axis."""

    saved_inputs = ()

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, *arrays: Array) -> Array:
        if len(arrays) <= AT_ONCE or not device_of(arrays[0]).is_async:
            return xp(arrays[0]).stack(arrays, self.axis)
        axis = self.axis % (arrays[0].ndim + 1)
        return _joined([xp(array).expand_dims(array, axis) for array in arrays], axis)

    def infer(self, *tensors: Any) -> Spec:
        shape = tensors[0].shape
        axis = self.axis % (len(shape) + 1)
        dtype = cpu().xp.result_type(*(x.dtype for x in tensors))
        return Spec((*shape[:axis], len(tensors), *shape[axis:]), dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        slices = Split(self.axis)(out_grad)
        return tuple(pick(slices, i) if x.requires_grad else None for i, x in enumerate(node.inputs))


class Split(TensorTupleOp):
    """The slices along one axis, without that axis."""

    saved_inputs, is_view = (), True

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, x: Array) -> tuple[Array, ...]:
        lead = (slice(None),) * (self.axis % x.ndim)
        return tuple(x[(*lead, i, ...)] for i in range(x.shape[self.axis]))

    def infer(self, x: Any) -> Any:
        axis = self.axis % len(x.shape)
        return (Spec(x.shape[:axis] + x.shape[axis + 1 :], x.dtype),) * x.shape[axis]

    def gradient(self, out_grad: TensorTuple, node: Any) -> Tensor:
        return Stack(self.axis)(*(pick(out_grad, i) for i in range(len(out_grad))))


class Concatenate(TensorOp):
    """Tensors joined along an existing axis."""

    saved_inputs = ()

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, *arrays: Array) -> Array:
        return _joined(arrays, self.axis)

    def infer(self, *tensors: Any) -> Spec:
        shape, axis = tensors[0].shape, self.axis
        shape = (*shape[:axis], sum(x.shape[axis] for x in tensors), *shape[axis + 1 :])
        return Spec(shape, cpu().xp.result_type(*(x.dtype for x in tensors)))

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        grads: list[Tensor | None] = []
        start, total = 0, node.shape[self.axis]
        for x in node.inputs:
            stop = start + x.shape[self.axis]
            crop = tuple((-start, stop - total) if i == self.axis else (0, 0) for i in range(node.ndim))
            grads.append(Pad(crop, 0)(out_grad) if x.requires_grad else None)
            start = stop
        return tuple(grads)


# ---- functions -------------------------------------------------------------------------------------------------------


def stack(tensors: Sequence[TensorLike] | TensorTuple, axis: int = 0, **words: Unpack[AxisWords]) -> Tensor:
    """Tensors of the same shape along a new axis: n tensors `(*S) -> (…, n, …)`, n at `axis`.

    Dtypes as in `add`. `axis` may be negative, -1 for the last of the result.

    Raises `TypeError` unless `tensors` is a list, a tuple or a TensorTuple; `ValueError` if it is empty, if shapes
    differ, or for an axis that the result lacks.
    """
    if words:
        return respelled(stack, words, tensors, axis=axis)
    tensors = _tensors("stack", tensors)
    for x in tensors:
        check.same("stack", "shape", tensors[0].shape, x.shape, ("the first tensor", "another"))
    return Stack(check.axis("stack", axis, tensors[0].ndim + 1))(*tensors)


def split(x: TensorLike, axis: int = 0, **words: Unpack[AxisWords]) -> TensorTuple:
    """The slices of x `(…, n, …)` along `axis`, without that axis: a TensorTuple of n views. The inverse of `stack`.

    Raises `ValueError` for an axis that x lacks.
    """
    if words:
        return respelled(split, words, x, axis=axis)
    x = tensor("split", x)
    return Split(check.axis("split", axis, x.ndim))(x)


def concatenate(tensors: Sequence[TensorLike] | TensorTuple, axis: int = 0, **words: Unpack[AxisWords]) -> Tensor:
    """Tensors joined along `axis`, which they have: `(…, n, …), (…, m, …) -> (…, n + m, …)`.

    Dtypes and errors as in `stack`; here `ValueError` is raised if sizes of other axes differ. Tensors (0,) beside
    others of more axes are left out, as in torch.
    """
    if words:
        return respelled(concatenate, words, tensors, axis=axis)
    tensors = _tensors("concatenate", tensors)
    tensors = tuple(x for x in tensors if x.shape != (0,)) or tensors
    axis = check.axis("concatenate", axis, tensors[0].ndim)
    for x in tensors:
        first, other = (t.shape[:axis] + t.shape[axis + 1 :] for t in (tensors[0], x))
        check.same("concatenate", f"all sizes but axis {axis}", first, other, ("the first tensor", "another"))
        check.same("concatenate", "rank", tensors[0].ndim, x.ndim, ("the first tensor", "another"))
    return Concatenate(axis)(*tensors)


def _tensors(op: str, tensors: Any) -> tuple[Tensor, ...]:
    """A non-empty sequence of operands as a tuple of tensors."""
    if not isinstance(tensors, (list, tuple, TensorTuple)) or isinstance(tensors, Tensor):
        raise TypeError(f"{op}: tensors must be a list or tuple of tensors, but got {type(tensors).__name__}")
    if not len(tensors):
        raise ValueError(f"{op}: at least one tensor is needed, but got none")
    like = next((x for x in tensors if isinstance(x, Tensor)), None)
    return promoted(op, *(tensor(op, x, like) for x in tensors))
