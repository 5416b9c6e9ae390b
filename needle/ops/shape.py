"""Ops that move elements and compute nothing: reshape, permute, broadcast, flip, dilate, pad.

Broadcasting and its transpose, summing, are each other's gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from needle import check, kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import cpu, xp
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.base import Array, Axes, Elementwise, FixedShape
from needle.ops.copies import CLONE
from needle.ops.operand import broadcast_shape, number, tensor
from needle.words import AxesWords, respelled

__all__ = [
    "BroadcastTo",
    "Dilate",
    "Flip",
    "Reshape",
    "UnDilate",
    "broadcast_to",
    "dilate",
    "flip",
    "pad",
    "permute",
    "reshape",
    "sum_to",
    "transpose",
    "undilate",
]


class Reshape(FixedShape):
    """The same elements, in row-major order, in another shape."""

    saved_inputs, is_view = (), True

    def __init__(self, shape: Iterable[int]) -> None:
        self.shape = tuple(shape)

    def compute(self, x: Array) -> Array:
        return x.reshape(self.shape)

    def infer(self, x: Any) -> Spec:
        others = -math.prod(self.shape)  # the product of the other sizes, if one entry is -1
        size = math.prod(x.shape)
        return Spec(tuple(size // others if n == -1 else n for n in self.shape), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return Reshape(node.inputs[0].shape)(out_grad)


class Permute(TensorOp):
    """Reordered axes: axis i of the result is axis `axes[i]` of x."""

    saved_inputs, is_view = (), True

    def __init__(self, axes: Sequence[int]) -> None:
        self.axes = axes

    def compute(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def infer(self, x: Any) -> Spec:
        return Spec(tuple(x.shape[i] for i in self.axes), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return Permute(tuple(map(self.axes.index, range(len(self.axes)))))(out_grad)


class BroadcastTo(FixedShape):
    """Axes of size 1 and new leading axes, repeated up to `shape`."""

    saved_inputs, is_view = (), True

    def __init__(self, shape: Iterable[int]) -> None:
        self.shape = tuple(shape)

    def compute(self, x: Array) -> Array:
        return xp(x).broadcast_to(x, self.shape)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return SumTo(node.inputs[0].shape)(out_grad)


class SumTo(TensorOp):
    """The transpose of broadcasting: the sum over the axes that broadcasting from `shape` repeats."""

    saved_inputs = ()

    def __init__(self, shape: Size) -> None:
        self.shape = shape

    def compute(self, x: Array) -> Array:
        return kernels.summed_to(self.shape, x)

    def infer(self, x: Any) -> Spec:
        return Spec(self.shape, x.dtype if x.dtype.kind == "f" else cpu().xp.dtype("int64"))

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return BroadcastTo(node.inputs[0].shape)(out_grad)


class Flip(Elementwise):
    """The elements in reverse order along `axes`: a copy."""

    saved_inputs, is_elementwise = (), False

    def __init__(self, axes: Axes = None) -> None:
        self.axes = axes

    def compute(self, x: Array) -> Array:
        return xp(x).flip(x, self.axes).copy()

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return self(out_grad)


class Dilate(TensorOp):
    """`dilation` zeros after every element along `axes`: n -> n · (dilation + 1)."""

    saved_inputs = ()

    def __init__(self, axes: int | Sequence[int], dilation: int) -> None:
        self.axes, self.dilation = axes, dilation

    def sizes(self, shape: Size) -> Size:
        """The shape of the result for an input of `shape`."""
        axes = _existing_axes(self.axes, len(shape))
        return tuple(n * (self.dilation + 1) if i in axes else n for i, n in enumerate(shape))

    def compute(self, x: Array) -> Array:
        y = xp(x).zeros_like(x, shape=self.sizes(x.shape))
        y[_strided(self.dilation + 1, self.axes, x.ndim)] = x
        return y

    def infer(self, x: Any) -> Spec:
        return Spec(self.sizes(x.shape), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return UnDilate(self.axes, self.dilation)(out_grad)


class UnDilate(TensorOp):
    """Every (dilation + 1)-th element along `axes`, starting with the first: n -> n / (dilation + 1), rounded up."""

    saved_inputs, is_view = (), True

    def __init__(self, axes: int | Sequence[int], dilation: int) -> None:
        self.axes, self.dilation = axes, dilation

    def compute(self, x: Array) -> Array:
        return x[_strided(self.dilation + 1, self.axes, x.ndim)]

    def infer(self, x: Any) -> Spec:
        step, axes = self.dilation + 1, _existing_axes(self.axes, len(x.shape))
        return Spec(tuple(-(-n // step) if i in axes else n for i, n in enumerate(x.shape)), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        dilated, shape = Dilate(self.axes, self.dilation)(out_grad), node.inputs[0].shape
        if dilated.shape == shape:
            return dilated
        return Pad(tuple((0, n - m) for m, n in zip(dilated.shape, shape, strict=True)), 0)(dilated)


class Pad(TensorOp):
    """`value` before and after the elements. `pairs` holds (before, after) for each axis; negative numbers crop."""

    saved_inputs = ()

    def __init__(self, pairs: tuple[tuple[int, int], ...], value: float) -> None:
        self.pairs, self.value = pairs, value

    def sizes(self, shape: Size) -> Size:
        """The shape of the result for an input of `shape`."""
        return tuple(n + before + after for n, (before, after) in zip(shape, self.pairs, strict=True))

    def compute(self, x: Array) -> Array:
        y = xp(x).full_like(x, self.value, shape=self.sizes(x.shape))
        sides = list(zip(x.shape, self.pairs, strict=True))
        target = tuple(slice(max(before, 0), before + n + min(after, 0)) for n, (before, after) in sides)
        source = tuple(slice(max(-before, 0), n + min(after, 0)) for n, (before, after) in sides)
        y[target] = x[source]
        return y

    def infer(self, x: Any) -> Spec:
        return Spec(self.sizes(x.shape), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return Pad(tuple((-before, -after) for before, after in self.pairs), 0)(out_grad)


def _strided(step: int, axes: int | Sequence[int], ndim: int) -> tuple[slice, ...]:
    """The index of every `step`-th element along `axes`."""
    axes = _existing_axes(axes, ndim)
    return tuple(slice(None, None, step if i in axes else None) for i in range(ndim))


def _existing_axes(axes: int | Sequence[int], ndim: int) -> Size:
    """The entries of `axes` that an array of `ndim` axes has, as non-negative integers."""
    entries = axes if isinstance(axes, (tuple, list)) else (axes,)
    return tuple(axis % ndim for axis in entries if -ndim <= axis < ndim)


# ---- for gradients ---------------------------------------------------------------------------------------------------


def sum_like(x: Tensor, y: Tensor) -> Tensor:
    """x summed down to the shape of y: the last step of a gradient if the operand may have been broadcast."""
    return x if x.spec.shape == y.spec.shape else SumTo(y.shape)(x)


def broadcast_like(x: Tensor, y: Tensor) -> Tensor:
    """x repeated up to the shape of y."""
    return x if x.spec.shape == y.spec.shape else BroadcastTo(y.shape)(x)


# ---- functions -------------------------------------------------------------------------------------------------------


def reshape(x: TensorLike, shape: int | Iterable[int], *sizes: int) -> Tensor:
    """The elements of x, in row-major order, in `shape`: `(*S) -> (*R)`; a view if the memory allows.

    One entry of `shape` may be -1 and is inferred; a single integer is a shape of one axis. Integers one by one are a
    shape as well: `x.reshape(4, -1)`.

    Raises `ValueError` if `shape` does not hold the elements of x, `TypeError` for sizes that are not integers.
    """
    x, shape = tensor("reshape", x), _sizes("reshape", (shape, *sizes) if sizes else shape, least=-1)
    size = x.size
    if shape.count(-1) == 1 and 0 not in shape:
        others = -math.prod(shape)
        shape = tuple(size // others if n == -1 else n for n in shape)
    if -1 in shape or math.prod(shape) != size:
        raise ValueError(f"reshape: shape must hold the {size} elements of {x.shape}, but got {shape}")
    return Reshape(shape)(x)


def permute(x: TensorLike, axes: int | Sequence[int] = (), *others: int, **words: Unpack[AxesWords]) -> Tensor:
    """Reordered axes: axis i of the result is axis `axes[i]` of x; a view. Also axes one by one: `x.permute(1, 0)`.

    Raises `ValueError` if `axes` does not name each axis once, `TypeError` for axes that are not integers.
    """
    if words:
        return respelled(permute, words, x, axes=axes)
    x = tensor("permute", x)
    given: Any = (axes, *others) if others else axes
    order = check.axes("permute", given, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"permute: axes must name each of the {x.ndim} axes of {x.shape} once, but got {given}")
    return Permute(order)(x)


def transpose(x: TensorLike, axes: Axes = None, *others: int, **words: Unpack[AxesWords]) -> Tensor:
    """Two axes exchanged, by default the last two: `(*B, n, m) -> (*B, m, n)`; a view.

    Axes may come one by one, `x.transpose(0, 1)`. As many as x has, but for two, reorder all of them as in `permute`.

    Raises `ValueError` for fewer than 2 axes, and unless `axes` are two different axes of x, or all.
    """
    if words:
        return respelled(transpose, words, x, axes=axes)
    x = tensor("transpose", x)
    if x.ndim < 2:
        raise ValueError(f"transpose: x must have at least 2 axes, but got shape {x.shape}")
    given: Any = (axes, *others) if others else axes
    pair = (x.ndim - 2, x.ndim - 1) if given is None else check.axes("transpose", given, x.ndim)
    if len(pair) == x.ndim > 2:
        return Permute(pair)(x)
    if len(pair) != 2:
        raise ValueError(f"transpose: axes must be two axes, but got {given}")
    return Permute(swapped_axes(x.ndim, *pair))(x)


def swapped_axes(ndim: int, first: int, second: int) -> Size:
    """All axes of `ndim` in order, but `first` and `second` exchanged."""
    swap = {first: second, second: first}
    return tuple(swap.get(i, i) for i in range(ndim))


def broadcast_to(x: TensorLike, shape: int | Iterable[int], *sizes: int) -> Tensor:
    """x repeated up to `shape` by NumPy's rules; a read-only view. Sizes may come one by one. The gradient is `sum_to`.

    Raises `ValueError` if x does not broadcast to `shape`, `TypeError` for sizes that are not integers.
    """
    x, shape = tensor("broadcast_to", x), _sizes("broadcast_to", (shape, *sizes) if sizes else shape)
    if x.shape == shape:
        return x
    if broadcast_shape("broadcast_to", x.shape, shape) != shape:
        raise ValueError(f"broadcast_to: shape must be one that {x.shape} repeats to, but got {shape}")
    return BroadcastTo(shape)(x)


def sum_to(x: TensorLike, shape: int | Iterable[int]) -> Tensor:
    """x summed down to `shape`, the transpose of `broadcast_to`: over the axes that broadcasting from `shape` repeats.

    Dtypes as in `summation`. Raises `ValueError` unless `shape` broadcasts to that of x, `TypeError` for sizes that are
    not integers.
    """
    x = tensor("sum_to", x)
    if x.shape == shape:
        return x
    shape = _sizes("sum_to", shape)
    if broadcast_shape("sum_to", x.shape, shape) != x.shape:
        raise ValueError(f"sum_to: shape must be one that repeats to {x.shape}, but got {shape}")
    return SumTo(shape)(x)


def flip(x: TensorLike, axes: Axes = None, **words: Unpack[AxesWords]) -> Tensor:
    """The elements in reverse order along `axes`: an axis, several, or None for all. `(*S) -> (*S)`, a copy.

    Raises `TypeError` or `ValueError` for axes as `summation` does.
    """
    if words:
        return respelled(flip, words, x, axes=axes)
    x = tensor("flip", x)
    return Flip(check.reduced_axes("flip", axes, x.ndim))(x)


def dilate(x: TensorLike, axes: int | Sequence[int], dilation: int) -> Tensor:
    """`dilation` zeros after every element along `axes`, n -> n · (dilation + 1): 0 is the identity.

    This is the course's convention. It counts inserted zeros, where a convolution's `dilation` counts steps and 1 is
    the identity. Axes that x does not have are ignored.

    Raises `ValueError` if `dilation` is negative, `TypeError` if it or an axis is not an integer.
    """
    x = tensor("dilate", x)
    return Dilate(_own_axes("dilate", axes, x), check.integer("dilate", "dilation", dilation, least=0))(x)


def undilate(x: TensorLike, axes: int | Sequence[int], dilation: int) -> Tensor:
    """Every (`dilation` + 1)-th element along `axes`, from the first: n -> n / (dilation + 1), rounded up; a view.

    It undoes `dilate`; axes and errors as in `dilate`.
    """
    x = tensor("undilate", x)
    return UnDilate(_own_axes("undilate", axes, x), check.integer("undilate", "dilation", dilation, least=0))(x)


def _own_axes(op: str, axes: Any, x: Tensor) -> Size:
    entries = axes if isinstance(axes, (tuple, list)) else (axes,)
    entries = tuple(check.integer(op, "axis", axis) for axis in entries)
    return check.axes(op, tuple(axis for axis in entries if -x.ndim <= axis < x.ndim), x.ndim)


def pad(x: TensorLike, pairs: Sequence[Sequence[int]], value: float = 0) -> Tensor:
    """`value` before and after x: one (before, after) for each axis; negative numbers crop.

    `(*S) -> (*P)` with P = S + before + after, of the dtype of x, to which `value` is cast. An integer in place of a
    pair stands for both sides.

    Raises `ValueError` if there is not one pair per axis, cropping leaves a negative size, or integers x do not hold
    `value`; `TypeError` for widths that are not integers or a `value` that is not a number.
    """
    x, value = tensor("pad", x), number("pad", value)
    check.fits("pad", "value", value, x.dtype)
    check.instance("pad", "pairs", pairs, Sequence)
    widths = tuple((before, after) for before, after in (check.sizes("pad", "pair", p, 2, least=None) for p in pairs))
    if len(widths) != x.ndim:
        raise ValueError(f"pad: pairs must hold one pair for each axis of {x.shape}, but got {len(widths)}")
    for n, (before, after) in zip(x.shape, widths, strict=True):
        if n + min(before, 0) + min(after, 0) < 0:
            raise ValueError(f"pad: negative pairs must not crop an axis of {x.shape} below 0, but got {widths}")
    return CLONE(x) if all(width == (0, 0) for width in widths) else Pad(widths, value)(x)


def _sizes(op: str, shape: Any, least: int = 0) -> Size:
    """A shape, or one size, as a tuple of integers of at least `least`."""
    if type(shape) is tuple and {*map(type, shape)} == {int} and min(shape) >= least:  # fast path
        return shape
    sizes = shape if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
    return tuple(check.integer(op, "shape", n, least=least) for n in sizes)
