"""Ops that move elements and compute nothing: reshape, permute, broadcast, flip, dilate, pad, stack, split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from needle import check
from needle.autograd import Tensor, TensorOp, TensorTuple, TensorTupleOp
from needle.backend_ndarray import cpu, xp
from needle.lazy import Outline
from needle.ops.operand import broadcast_shape, number, tensor
from needle.ops.outlines import Elementwise, Reshaping

# ---- one tensor, other axes ------------------------------------------------------------------------------------------


class Reshape(Reshaping):
    """The same elements, in row-major order, in another shape."""

    reads_inputs, is_view = False, True

    def __init__(self, shape):
        self.shape = shape

    def compute(self, x):
        return x.reshape(self.shape)

    def gradient(self, out_grad, node):
        return reshape(out_grad, node.inputs[0].shape)


class Permute(TensorOp):
    """Axes in another order: axis i of the result is axis `axes[i]` of x."""

    reads_inputs, is_view = False, True

    def __init__(self, axes):
        self.axes = axes

    def compute(self, x):
        return x.transpose(self.axes)

    def infer(self, x):
        return Outline(tuple(x.shape[i] for i in self.axes), x.dtype)

    def gradient(self, out_grad, node):
        return permute(out_grad, tuple(self.axes.index(i) for i in range(len(self.axes))))


class BroadcastTo(Reshaping):
    """Axes of size 1 and new leading axes repeated up to `shape`."""

    reads_inputs, is_view = False, True

    def __init__(self, shape):
        self.shape = shape

    def compute(self, x):
        return xp(x).broadcast_to(x, self.shape)

    def gradient(self, out_grad, node):
        return sum_to(out_grad, node.inputs[0].shape)


class SumTo(TensorOp):
    """The transpose of broadcasting: sums over the axes that broadcasting from `shape` would repeat."""

    reads_inputs = False

    def __init__(self, shape):
        self.shape = shape

    def compute(self, x):
        lead = x.ndim - len(self.shape)
        repeated = tuple(i + lead for i, n in enumerate(self.shape) if n == 1 and x.shape[i + lead] != 1)
        return x.sum(axis=tuple(range(lead)) + repeated, keepdims=True).reshape(self.shape)

    def infer(self, x):
        return Outline(self.shape, x.dtype if x.dtype.kind == "f" else cpu().xp.ones(1, x.dtype).sum().dtype)

    def gradient(self, out_grad, node):
        return broadcast_to(out_grad, node.inputs[0].shape)


class Flip(Elementwise):
    """The elements in reverse order along `axes`: a view with negative strides."""

    reads_inputs, is_view = False, True

    def __init__(self, axes=None):
        self.axes = axes

    def compute(self, x):
        return xp(x).flip(x, self.axes)

    def gradient(self, out_grad, node):
        return flip(out_grad, self.axes)


class Dilate(TensorOp):
    """`dilation` zeros after every element along `axes`: n -> n * (dilation + 1)."""

    reads_inputs = False

    def __init__(self, axes, dilation):
        self.axes, self.dilation = axes, dilation

    def sizes(self, shape):
        """The shape of the result for an input of `shape`."""
        return tuple(n * (self.dilation + 1) if i in self.axes else n for i, n in enumerate(shape))

    def compute(self, x):
        out = xp(x).zeros_like(x, shape=self.sizes(x.shape))
        out[_every(self.dilation + 1, self.axes, x.ndim)] = x
        return out

    def infer(self, x):
        return Outline(self.sizes(x.shape), x.dtype)

    def gradient(self, out_grad, node):
        return UnDilate(self.axes, self.dilation)(out_grad)


class UnDilate(TensorOp):
    """Every (dilation + 1)-th element along `axes`, the first included: n -> n / (dilation + 1), rounded up."""

    reads_inputs, is_view = False, True

    def __init__(self, axes, dilation):
        self.axes, self.dilation = axes, dilation

    def compute(self, x):
        return x[_every(self.dilation + 1, self.axes, x.ndim)]

    def infer(self, x):
        steps = self.dilation + 1
        return Outline(tuple(-(-n // steps) if i in self.axes else n for i, n in enumerate(x.shape)), x.dtype)

    def gradient(self, out_grad, node):
        whole = Dilate(self.axes, self.dilation)(out_grad)
        return _fit(whole, node.inputs[0].shape)


class Pad(TensorOp):
    """`value` before and after the elements: `pairs` holds (before, after) for each axis; negative ones cut."""

    reads_inputs = False

    def __init__(self, pairs, value):
        self.pairs, self.value = pairs, value

    def sizes(self, shape):
        """The shape of the result for an input of `shape`."""
        return tuple(n + before + after for n, (before, after) in zip(shape, self.pairs, strict=True))

    def compute(self, x):
        out = xp(x).full_like(x, self.value, shape=self.sizes(x.shape))
        inside = [
            (slice(max(before, 0), before + n + min(after, 0)), slice(max(-before, 0), n + min(after, 0)))
            for n, (before, after) in zip(x.shape, self.pairs, strict=True)
        ]
        out[tuple(target for target, _ in inside)] = x[tuple(source for _, source in inside)]
        return out

    def infer(self, x):
        return Outline(self.sizes(x.shape), x.dtype)

    def gradient(self, out_grad, node):
        return pad(out_grad, tuple((-before, -after) for before, after in self.pairs))


def _every(steps, axes, ndim):
    return tuple(slice(None, None, steps if i in axes else None) for i in range(ndim))


def _fit(x, shape):
    """Zeros added, or elements cut, at the end of each axis, to reach `shape`."""
    return x if x.shape == shape else pad(x, tuple((0, n - m) for m, n in zip(x.shape, shape, strict=True)))


# ---- several tensors -------------------------------------------------------------------------------------------------


class Stack(TensorOp):
    """Tensors of one shape along a new axis."""

    reads_inputs = False

    def __init__(self, axis):
        self.axis = axis

    def compute(self, *arrays):
        return xp(arrays[0]).stack(arrays, self.axis)

    def infer(self, *tensors):
        shape = tensors[0].shape
        shape = (*shape[: self.axis], len(tensors), *shape[self.axis :])
        return Outline(shape, cpu().xp.result_type(*(x.dtype for x in tensors)))

    def gradient(self, out_grad, node):
        parts = split(out_grad, self.axis)
        return tuple(parts[i] if x.requires_grad else None for i, x in enumerate(node.inputs))


class Split(TensorTupleOp):
    """The slices along one axis, without that axis."""

    reads_inputs, is_view = False, True

    def __init__(self, axis):
        self.axis = axis

    def compute(self, x):
        lead = (slice(None),) * self.axis
        return tuple(x[(*lead, i, ...)] for i in range(x.shape[self.axis]))

    def infer(self, x):
        part = Outline(x.shape[: self.axis] + x.shape[self.axis + 1 :], x.dtype)
        return (part,) * x.shape[self.axis]

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
        return Outline(shape, cpu().xp.result_type(*(x.dtype for x in tensors)))

    def gradient(self, out_grad, node):
        grads, start, total = [], 0, node.shape[self.axis]
        for x in node.inputs:
            stop = start + x.shape[self.axis]
            pairs = tuple((-start, stop - total) if i == self.axis else (0, 0) for i in range(node.ndim))
            grads.append(pad(out_grad, pairs) if x.requires_grad else None)
            start = stop
        return tuple(grads)


# ---- functions -------------------------------------------------------------------------------------------------------


def reshape(x, shape):
    """The elements of x, in row-major order, in `shape`; one entry may be -1: what is left."""
    x, shape = tensor("reshape", x), _sizes("reshape", shape, least=-1)
    if shape.count(-1) == 1:
        rest = math.prod(n for n in shape if n != -1)
        shape = tuple(x.size // rest if n == -1 and rest else n for n in shape)
    if -1 in shape or math.prod(shape) != x.size:
        raise ValueError(f"reshape: shape must hold the {x.size} elements of {x.shape}, but got {shape}")
    return Reshape(shape)(x)


def permute(x, axes):
    """Axes in another order: axis i of the result is axis `axes[i]` of x."""
    x = tensor("permute", x)
    order = check.axes("permute", axes, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"permute: axes must name each of the {x.ndim} axes of {x.shape} once, but got {axes}")
    return Permute(order)(x)


def transpose(x, axes=None):
    """Two axes exchanged, the last two by default."""
    x = tensor("transpose", x)
    if x.ndim < 2:
        raise ValueError(f"transpose: x must have at least 2 axes, but got shape {x.shape}")
    pair = (x.ndim - 2, x.ndim - 1) if axes is None else check.axes("transpose", axes, x.ndim)
    if len(pair) != 2:
        raise ValueError(f"transpose: axes must be two axes, but got {axes}")
    swap = {pair[0]: pair[1], pair[1]: pair[0]}
    return Permute(tuple(swap.get(i, i) for i in range(x.ndim)))(x)


def broadcast_to(x, shape):
    """x repeated up to `shape` by NumPy's rules."""
    x, shape = tensor("broadcast_to", x), _sizes("broadcast_to", shape)
    if x.shape == shape:
        return x
    if broadcast_shape("broadcast_to", x.shape, shape) != shape:
        raise ValueError(f"broadcast_to: shape must be one that {x.shape} repeats to, but got {shape}")
    return BroadcastTo(shape)(x)


def sum_to(x, shape):
    """The transpose of `broadcast_to`: x summed down to `shape`."""
    x = tensor("sum_to", x)
    if x.shape == shape:
        return x
    shape = _sizes("sum_to", shape)
    if broadcast_shape("sum_to", x.shape, shape) != x.shape:
        raise ValueError(f"sum_to: shape must be one that repeats to {x.shape}, but got {shape}")
    return SumTo(shape)(x)


def flip(x, axes=None):
    """The elements in reverse order along `axes` (an axis, several, or None for all)."""
    x = tensor("flip", x)
    return Flip(check.axes("flip", axes, x.ndim))(x)


def dilate(x, axes, dilation):
    """`dilation` zeros after every element along `axes`, n -> n * (dilation + 1): 0 is the identity.

    The course's convention: it counts the zeros put in, where a convolution's `dilation` counts steps (1 is the
    identity). Axes that x does not have are ignored.
    """
    x = tensor("dilate", x)
    return Dilate(_own_axes("dilate", axes, x), check.integer("dilate", "dilation", dilation, least=0))(x)


def undilate(x, axes, dilation):
    """Every (`dilation` + 1)-th element along `axes`, the first included; undoes `dilate`."""
    x = tensor("undilate", x)
    return UnDilate(_own_axes("undilate", axes, x), check.integer("undilate", "dilation", dilation, least=0))(x)


def _own_axes(op, axes, x):
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    given = tuple(check.integer(op, "axis", axis) for axis in given)
    return check.axes(op, tuple(axis for axis in given if -x.ndim <= axis < x.ndim), x.ndim)


def pad(x, pairs, value=0):
    """`value` before and after x: one (before, after) for each axis; negative ones cut elements off."""
    x, value = tensor("pad", x), number("pad", value)
    check.instance("pad", "pairs", pairs, Sequence)
    pairs = tuple(check.sizes("pad", "pair", pair, 2, least=None) for pair in pairs)
    if len(pairs) != x.ndim:
        raise ValueError(f"pad: pairs must be one for each axis of {x.shape}, but got {len(pairs)}")
    for n, pair in zip(x.shape, pairs, strict=True):
        if n + min(pair[0], 0) + min(pair[1], 0) < 0:
            raise ValueError(f"pad: negative pairs must leave each axis of {x.shape} a size, but got {pairs}")
    return x if all(pair == (0, 0) for pair in pairs) else Pad(pairs, value)(x)


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


def _sizes(op, shape, least=0):
    """A shape, or one size, as a tuple of integers of at least `least`."""
    sizes = shape if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
    return tuple(check.integer(op, "shape", n, least=least) for n in sizes)


def with_batch(x, rank):
    """x (N, C, *S), or (C, *S) as a batch of one, and the function that takes the axis of such a batch off again."""
    if x.ndim == rank + 2:
        return x, lambda y: y
    return reshape(x, (1, *x.shape)), lambda y: reshape(y, y.shape[1:])


def _several(op, tensors):
    """A non-empty sequence of tensors as a tuple."""
    if not isinstance(tensors, (list, tuple, TensorTuple)) or isinstance(tensors, Tensor):
        raise TypeError(f"{op}: tensors must be a list or tuple of tensors, but got {type(tensors).__name__}")
    if not len(tensors):
        raise ValueError(f"{op}: tensors must be at least one, but got none")
    return tuple(tensor(op, x) for x in tensors)
