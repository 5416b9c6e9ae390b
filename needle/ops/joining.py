"""Ops that make one tensor of several, or several of one: stack, split, concatenate."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorOp, TensorTuple, TensorTupleOp
from needle.backend import cpu, xp
from needle.lazy import Spec
from needle.ops.operand import tensor
from needle.ops.shape import pad


class Stack(TensorOp):
    """Tensors of one shape along a new axis."""

    reads_inputs = False

    def __init__(self, axis):
        self.axis = axis

    def compute(self, *arrays):
        return xp(arrays[0]).stack(arrays, self.axis)

    def infer(self, *tensors):
        shape = tensors[0].shape
        axis = self.axis % (len(shape) + 1)
        shape = (*shape[:axis], len(tensors), *shape[axis:])
        return Spec(shape, cpu().xp.result_type(*(x.dtype for x in tensors)))

    def gradient(self, out_grad, node):
        parts = split(out_grad, self.axis)
        return tuple(parts[i] if x.requires_grad else None for i, x in enumerate(node.inputs))


class Split(TensorTupleOp):
    """The slices along one axis, without that axis."""

    reads_inputs, is_view = False, True

    def __init__(self, axis):
        self.axis = axis

    def compute(self, x):
        lead = (slice(None),) * (self.axis % x.ndim)
        return tuple(x[(*lead, i, ...)] for i in range(x.shape[self.axis]))

    def infer(self, x):
        axis = self.axis % len(x.shape)
        return (Spec(x.shape[:axis] + x.shape[axis + 1 :], x.dtype),) * x.shape[axis]

    def gradient(self, out_grad, node):
        return stack(out_grad.tuple(), self.axis)


class Concatenate(TensorOp):
    """Tensors joined along an axis that they have."""

    reads_inputs = False

    def __init__(self, axis):
        self.axis = axis

    def compute(self, *arrays):
        return xp(arrays[0]).concatenate(arrays, self.axis)

    def infer(self, *tensors):
        shape, axis = tensors[0].shape, self.axis
        shape = (*shape[:axis], sum(x.shape[axis] for x in tensors), *shape[axis + 1 :])
        return Spec(shape, cpu().xp.result_type(*(x.dtype for x in tensors)))

    def gradient(self, out_grad, node):
        grads, start, total = [], 0, node.shape[self.axis]
        for x in node.inputs:
            stop = start + x.shape[self.axis]
            pairs = tuple((-start, stop - total) if i == self.axis else (0, 0) for i in range(node.ndim))
            grads.append(pad(out_grad, pairs) if x.requires_grad else None)
            start = stop
        return tuple(grads)


# ---- functions -------------------------------------------------------------------------------------------------------


def stack(tensors, axis=0):
    """Tensors of one shape (*S) along a new axis: (*S) each -> (…, len, …)."""
    tensors = _several("stack", tensors)
    for x in tensors:
        check.same("stack", "shape", tensors[0].shape, x.shape, ("the first tensor", "another"))
    return Stack(check.axis("stack", axis, tensors[0].ndim + 1))(*tensors)


def split(x, axis=0):
    """The slices of x along `axis`, without that axis, as a TensorTuple."""
    x = tensor("split", x)
    return Split(check.axis("split", axis, x.ndim))(x)


def concatenate(tensors, axis=0):
    """Tensors joined along `axis`; their other sizes agree."""
    tensors = _several("concatenate", tensors)
    axis = check.axis("concatenate", axis, tensors[0].ndim)
    for x in tensors:
        rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in (tensors[0], x)]
        check.same("concatenate", f"all sizes but axis {axis}", *rest, ("the first tensor", "another"))
        check.same("concatenate", "rank", tensors[0].ndim, x.ndim, ("the first tensor", "another"))
    return Concatenate(axis)(*tensors)


def _several(op, tensors):
    """A non-empty sequence of tensors as a tuple."""
    if not isinstance(tensors, (list, tuple, TensorTuple)) or isinstance(tensors, Tensor):
        raise TypeError(f"{op}: tensors must be a list or tuple of tensors, but got {type(tensors).__name__}")
    if not len(tensors):
        raise ValueError(f"{op}: tensors must be at least one, but got none")
    return tuple(tensor(op, x) for x in tensors)
