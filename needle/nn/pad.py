"""Padding layers, one class for each mode and number of axes.

`padding` is one integer for all sides, or (before, after) of the last axis, then of the one before it, and so on, as in
`functional.pad`; negative numbers cut elements off. Each axis changes from S to before + S + after. The dtype stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.module import Module
from needle.ops.operand import number

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    """`functional.pad` of the last `rank` axes in one mode."""

    rank: ClassVar[int]
    mode: ClassVar[str] = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding = padding
        self.padding = self._amounts()

    def _amounts(self) -> tuple[int, ...]:
        return check.sizes(type(self).__name__, "padding", self.padding, 2 * self.rank, least=None)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.pad(x, self._amounts(), self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """`functional.pad` of the last `rank` axes with `value`."""

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        number(type(self).__name__, value)
        self.value = value

    def forward(self, x: TensorLike) -> Tensor:
        return functional.pad(x, self._amounts(), self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pad the last axis of x (…, L) with `value`; `padding` is one integer or 2.

    Raises ValueError or TypeError as `functional.pad` does.
    """

    rank = 1


class ConstantPad2d(_ConstantPad):
    """Pad the last 2 axes of x (…, H, W) with `value`; `padding` is one integer or 4.

    Raises ValueError or TypeError as `functional.pad` does.
    """

    rank = 2


class ConstantPad3d(_ConstantPad):
    """Pad the last 3 axes of x (…, D, H, W) with `value`; `padding` is one integer or 6.

    Raises ValueError or TypeError as `functional.pad` does.
    """

    rank = 3


class ZeroPad1d(_Pad):
    """Pad the last axis of x (…, L) with zeros; `padding` is one integer or 2.

    Raises ValueError or TypeError as `functional.pad` does.
    """

    rank = 1


class ZeroPad2d(_Pad):
    """Pad the last 2 axes of x (…, H, W) with zeros; `padding` is one integer or 4. Errors as in `ZeroPad1d`."""

    rank = 2


class ZeroPad3d(_Pad):
    """Pad the last 3 axes of x (…, D, H, W) with zeros; `padding` is one integer or 6. Errors as in `ZeroPad1d`."""

    rank = 3


class ReflectionPad1d(_Pad):
    """Pad the last axis of x (N, C, L) or (C, L) with its mirror image without the edge element.

    `padding` is one integer or 2. Padding must be smaller than the axis (ValueError).
    """

    rank = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pad each of the last 2 axes of x (N, C, H, W) or (C, H, W) with its mirror image without the edge element.

    `padding` is one integer or 4. Padding must be smaller than the axis (ValueError).
    """

    rank = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """Pad each of the last 3 axes of x (N, C, D, H, W) or (C, D, H, W) with its mirror image without the edge element.

    `padding` is one integer or 6. Padding must be smaller than the axis (ValueError).
    """

    rank = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pad the last axis of x (N, C, L) or (C, L) with its edge element.

    `padding` is one integer or 2. No axis but N may be empty (ValueError).
    """

    rank = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pad each of the last 2 axes of x (N, C, H, W) or (C, H, W) with its edge element.

    `padding` is one integer or 4. No axis but N may be empty (ValueError).
    """

    rank = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """Pad each of the last 3 axes of x (N, C, D, H, W) or (C, D, H, W) with its edge element.

    `padding` is one integer or 6. No axis but N may be empty (ValueError).
    """

    rank = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """Pad the last axis of x (N, C, L) or (C, L) with the elements at its other end.

    `padding` is one integer or 2. Padding must not exceed the axis (ValueError).
    """

    rank = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """Pad each of the last 2 axes of x (N, C, H, W) or (C, H, W) with the elements at its other end.

    `padding` is one integer or 4. Padding must not exceed the axis (ValueError).
    """

    rank = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """Pad each of the last 3 axes of x (N, C, D, H, W) or (C, D, H, W) with the elements at its other end.

    `padding` is one integer or 6. Padding must not exceed the axis (ValueError).
    """

    rank = 3
    mode = "circular"
