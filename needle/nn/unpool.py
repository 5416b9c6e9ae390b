"""Layers that put maxima back to their places, over 1, 2 and 3 spatial axes. x may lack the batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.conv import Sizes
from needle.nn.functional.unpool import unpool_window
from needle.nn.module import Module

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]

MAX_UNPOOLS = (functional.max_unpool1d, functional.max_unpool2d, functional.max_unpool3d)  # by rank


class _MaxUnpool(Module):
    """The inverse of max pooling over `rank` axes."""

    rank: ClassVar[int]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size: Sizes
        self.stride: Sizes
        self.padding: Sizes
        self.kernel_size, self.stride, self.padding = unpool_window(name, self.rank, kernel_size, stride, padding)

    def forward(self, x: TensorLike, indices: TensorLike, output_size: Sequence[int] | None = None) -> Tensor:
        return MAX_UNPOOLS[self.rank - 1](x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Maxima put back to their places among zeros: x (N, C, P), and their indices -> (N, C, L). See `MaxUnpool2d`."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """Maxima put back to their places among zeros: x (N, C, P, P), and their indices in H·W -> (N, C, H, W).

    H = (P - 1) · stride - 2 · padding + kernel, or, within a stride of that, as in the `output_size` of the call. The
    stride is the kernel size by default. x must have a floating dtype (TypeError). Raises ValueError if shapes do not
    fit together or, on the CPU, if an index lies outside.

    >>> import needle as ndl
    >>> best, indices = ndl.nn.MaxPool2d(2, return_indices=True)(ndl.Tensor([[[1.0, 2.0], [4.0, 3.0]]]))
    >>> MaxUnpool2d(2)(best, indices).numpy().tolist()
    [[[0.0, 0.0], [4.0, 0.0]]]
    """

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """Maxima put back to their places among zeros: x (N, C, P, P, P), and their indices -> (N, C, D, H, W).

    See `MaxUnpool2d`.
    """

    rank = 3
