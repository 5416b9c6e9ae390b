"""Layers of power-average pooling, over 1, 2 and 3 spatial axes. x may lack the batch axis."""

from __future__ import annotations

from typing import ClassVar

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.conv import Sizes
from needle.nn.module import Module
from needle.ops.operand import pool_window

__all__ = ["LPPool1d", "LPPool2d", "LPPool3d"]

LP_POOLS = (functional.lp_pool1d, functional.lp_pool2d, functional.lp_pool3d)  # by rank


class _LPPool(Module):
    """Power-average pooling over `rank` axes."""

    rank: ClassVar[int]
    flags = ("ceil_mode",)

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        check.nonzero(name, "norm_type", norm_type)
        pool_window(name, self.rank, kernel_size, stride)
        self.norm_type, self.kernel_size, self.stride = norm_type, kernel_size, stride
        self.ceil_mode = ceil_mode

    def forward(self, x: TensorLike) -> Tensor:
        return LP_POOLS[self.rank - 1](x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """sum(x ** p) ** (1 / p) over each window, p = norm_type: x (N, C, L) -> (N, C, P). See `LPPool2d`."""

    rank = 1


class LPPool2d(_LPPool):
    """sum(x ** p) ** (1 / p) over each window, p = norm_type: x (N, C, H, W) -> (N, C, P, P).

    p may be infinite. The stride is the kernel size by default; `ceil_mode` rounds P up. The derivative where the sum
    is 0 is 0. Raises ValueError if p is 0 or the window does not fit, TypeError unless the dtype of x is floating.

    Gulcehre, Cho, Pascanu and Bengio, "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks" (2014).
    """

    rank = 2


class LPPool3d(_LPPool):
    """sum(x ** p) ** (1 / p) over each window, p = norm_type: x (N, C, D, H, W) -> (N, C, P, P, P). See `LPPool2d`."""

    rank = 3
