"""Ops that move the elements of one tensor and compute nothing: reshape, permute, broadcast, flip, dilate, pad."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from needle import check, kernels
from needle.autograd import TensorOp
from needle.backend import cpu, xp
from needle.lazy import Spec
from needle.ops.base import Elementwise, Reshaping
from needle.ops.operand import broadcast_shape, number, tensor


class Reshape(Reshaping):
    """The same elements, in row-major order, in another shape."""

    reads_inputs, is_view = False, True

    def __init__(self, shape):
        self.shape = tuple(shape)

    def compute(self, x):
        return x.reshape(self.shape)

    def infer(self, x):
        rest = -math.prod(self.shape)  # where one entry is -1
        size = math.prod(x.shape)
        return Spec(tuple(size // rest if n == -1 else n for n in self.shape), x.dtype)

    def gradient(self, out_grad, node):
        return Reshape(node.inputs[0].shape)(out_grad)


class Permute(TensorOp):
    """Axes in another order: axis i of the result is axis `axes[i]` of x."""

    reads_inputs, is_view = False, True

    def __init__(self, axes):
        self.axes = axes

    def compute(self, x):
        return x.transpose(self.axes)

    def infer(self, x):
        return Spec(tuple(x.shape[i] for i in self.axes), x.dtype)

    def gradient(self, out_grad, node):
        return Permute(tuple(map(self.axes.index, range(len(self.axes)))))(out_grad)


class BroadcastTo(Reshaping):
    """Axes of size 1 and new leading axes repeated up to `shape`."""

    reads_inputs, is_view = False, True

    def __init__(self, shape):
        self.shape = tuple(shape)

    def compute(self, x):
        return xp(x).broadcast_to(x, self.shape)

    def gradient(self, out_grad, node):
        return SumTo(node.inputs[0].shape)(out_grad)


class SumTo(TensorOp):
    """The transpose of broadcasting: sums over the axes that broadcasting from `shape` would repeat."""

    reads_inputs = False

    def __init__(self, shape):
        self.shape = shape

    def compute(self, x):
        lead = x.ndim - len(self.shape)
        axes = (*range(lead), *(i + lead for i, n in enumerate(self.shape) if n == 1 and x.shape[i + lead] != 1))
        return kernels.sums(x, axes).reshape(self.shape)

    def infer(self, x):
        return Spec(self.shape, x.dtype if x.dtype.kind == "f" else cpu().xp.ones(1, x.dtype).sum().dtype)

    def gradient(self, out_grad, node):
        return BroadcastTo(node.inputs[0].shape)(out_grad)


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
        axes = _present(self.axes, len(shape))
        return tuple(n * (self.dilation + 1) if i in axes else n for i, n in enumerate(shape))

    def compute(self, x):
        out = xp(x).zeros_like(x, shape=self.sizes(x.shape))
        out[_every(self.dilation + 1, self.axes, x.ndim)] = x
        return out

    def infer(self, x):
        return Spec(self.sizes(x.shape), x.dtype)

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
        steps, axes = self.dilation + 1, _present(self.axes, len(x.shape))
        return Spec(tuple(-(-n // steps) if i in axes else n for i, n in enumerate(x.shape)), x.dtype)

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
        return Spec(self.sizes(x.shape), x.dtype)

    def gradient(self, out_grad, node):
        return pad(out_grad, tuple((-before, -after) for before, after in self.pairs))


def _every(steps, axes, ndim):
    axes = _present(axes, ndim)
    return tuple(slice(None, None, steps if i in axes else None) for i in range(ndim))


def _present(axes, ndim):
    """Those of `axes` that an array of `ndim` axes has, none of them negative."""
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    return tuple(axis % ndim for axis in given if -ndim <= axis < ndim)


def _fit(x, shape):
    """Zeros added, or elements cut, at the end of each axis, to reach `shape`."""
    return x if x.shape == shape else pad(x, tuple((0, n - m) for m, n in zip(x.shape, shape, strict=True)))


# ---- functions -------------------------------------------------------------------------------------------------------


def reshape(x, shape):
    """The elements of x, in row-major order, in `shape`; one entry may be -1: what is left."""
    x, shape = tensor("reshape", x), _sizes("reshape", shape, least=-1)
    size = x.size
    if shape.count(-1) == 1 and 0 not in shape:
        rest = -math.prod(shape)
        shape = tuple(size // rest if n == -1 else n for n in shape)
    if -1 in shape or math.prod(shape) != size:
        raise ValueError(f"reshape: shape must hold the {size} elements of {x.shape}, but got {shape}")
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


def sum_like(x, y):
    """x summed down to the shape of y: what every gradient of operands that may have been broadcast ends with."""
    return x if x.spec.shape == y.spec.shape else SumTo(y.shape)(x)


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


def _sizes(op, shape, least=0):
    """A shape, or one size, as a tuple of integers of at least `least`."""
    if type(shape) is tuple and {*map(type, shape)} == {int} and min(shape) >= least:  # what a shape is, seen at once
        return shape
    sizes = shape if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
    return tuple(check.integer(op, "shape", n, least=least) for n in sizes)


def with_batch(x, rank):
    """x (N, C, *S), or (C, *S) as a batch of one, and the function that takes the axis of such a batch off again."""
    if x.ndim == rank + 2:
        return x, lambda y: y
    return reshape(x, (1, *x.shape)), lambda y: reshape(y, y.shape[1:])
