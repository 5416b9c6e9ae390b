"""The course's module of mathematical ops, under its names; the ops themselves are in the other files here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from needle.autograd import Tensor, TensorLike
from needle.ops import arithmetic, elementwise, joining, linalg, powers, reduce, shape
from needle.ops.arithmetic import *
from needle.ops.conv import conv as conv
from needle.ops.elementwise import *
from needle.ops.joining import *
from needle.ops.linalg import *
from needle.ops.powers import *
from needle.ops.reduce import *
from needle.ops.shape import *


class Conv:
    """`conv` with the options first: `Conv(stride, padding)(x, weight)`; unlike `conv`, its default padding is 0.

    Options are checked by the call.
    """

    def __init__(self, stride: Any = 1, padding: Any = 0) -> None:
        self.stride, self.padding = stride, padding

    def __call__(self, x: TensorLike, weight: TensorLike) -> Tensor:
        return conv(x, weight, self.stride, self.padding)


class Transpose:
    """`transpose` with the axes first: `Transpose(axes)(x)`, which checks them."""

    def __init__(self, axes: Sequence[int] | None = None) -> None:
        self.axes = axes

    def __call__(self, x: TensorLike) -> Tensor:
        return shape.transpose(x, self.axes)


if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    _FILES = (arithmetic, elementwise, joining, linalg, powers, reduce, shape)
    __all__ = ["Conv", "Transpose", "conv", *(name for file in _FILES for name in file.__all__)]
