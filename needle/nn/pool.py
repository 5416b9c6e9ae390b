"""Pooling layers: one body for 1, 2 and 3 spatial axes.

Shapes: N batch, C channels, *S input size, *P output size. x may lack the batch axis. Sizes are one integer for all
spatial axes or one for each. x must have a floating dtype (TypeError), which the result keeps; maxima may be of
integers, means of windows of int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.conv import Sizes
from needle.nn.functional.pool import OutputSizes
from needle.nn.module import Module
from needle.ops.operand import pool_window

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]

# By rank.
MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
ADAPTIVE_AVG_POOLS = (
    functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d
)  # fmt: skip
ADAPTIVE_MAX_POOLS = (
    functional.adaptive_max_pool1d, functional.adaptive_max_pool2d, functional.adaptive_max_pool3d
)  # fmt: skip


# ---- max pooling -----------------------------------------------------------------------------------------------------


class _MaxPool(Module):
    """Max pooling over `rank` axes."""

    rank: ClassVar[int]
    flags = ("return_indices", "ceil_mode")

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        name = type(self).__name__
        pool_window(name, self.rank, kernel_size, stride, padding, dilation)
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, x: TensorLike) -> Tensor | Any:  # Any: a pair, with return_indices
        return MAX_POOLS[self.rank - 1](
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window: x (N, C, L) -> (N, C, P). Options and errors as in `MaxPool2d`."""

    rank = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window: x (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default.

    Among equal elements the first in row-major order wins; NaN counts as the largest. P is computed as in `Conv2d`;
    `ceil_mode` rounds it up. With `return_indices` the result is a pair: the elements, and their positions in H·W as
    int64. Raises ValueError if the padding exceeds half of the kernel or the window does not fit.

    >>> import needle as ndl
    >>> MaxPool2d(2)(ndl.Tensor([[[[1.0, 2.0], [4.0, 3.0]]]])).numpy().tolist()
    [[[[4.0]]]]
    """

    rank = 2


class MaxPool3d(_MaxPool):
    """The largest element of each window: x (N, C, D, H, W) -> (N, C, P, P, P). Options and errors as in `MaxPool2d`.

    Positions are those in D·H·W.
    """

    rank = 3


def commutes_with_relu(module: Module) -> bool:
    """Whether a module is a max-pooling with max_pool(relu(x)) = relu(max_pool(x)), gradients included.

    A window of a dilated kernel may hold padding only; its maximum is -infinity, which relu would change.
    """
    return (
        isinstance(module, _MaxPool)
        and type(module) in (MaxPool1d, MaxPool2d, MaxPool3d)
        and not module.return_indices
        and (module.padding == 0 or module.dilation == 1)
    )


# ---- average pooling -------------------------------------------------------------------------------------------------


class _AvgPool(Module):
    """Average pooling: the options of all ranks."""

    rank: ClassVar[int]
    flags = ("ceil_mode", "count_include_pad")

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        kernel, window = pool_window(name, self.rank, kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        if self.rank == 1:  # tuples, as in torch
            self.kernel_size, self.stride, self.padding = kernel, window.stride, window.padding[0][:1]
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window: x (N, C, L) -> (N, C, P). Options and errors as in `AvgPool2d`, less the divisor."""

    rank = 1

    def forward(self, x: TensorLike) -> Tensor:
        return functional.avg_pool1d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class _AvgPoolWithDivisor(_AvgPool):
    """Average pooling over 2 or 3 axes; sums may be divided by another number than the window's size."""

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if divisor_override is not None:
            check.integer(type(self).__name__, "divisor_override", divisor_override)
        self.divisor_override = divisor_override


class AvgPool2d(_AvgPoolWithDivisor):
    """The mean of each window: x (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default.

    Padding counts as zeros, or not at all with `count_include_pad=False`. P is computed as in `Conv2d`; `ceil_mode`
    rounds it up, and elements beyond the padding never count. `divisor_override` replaces the window size as the
    divisor. Raises ValueError if the padding exceeds half of the kernel or the window does not fit.
    """

    rank = 2

    def forward(self, x: TensorLike) -> Tensor:
        return functional.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip


class AvgPool3d(_AvgPoolWithDivisor):
    """The mean of each window: x (N, C, D, H, W) -> (N, C, P, P, P). Options and errors as in `AvgPool2d`."""

    rank = 3

    def forward(self, x: TensorLike) -> Tensor:
        return functional.avg_pool3d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip


# ---- adaptive pooling ------------------------------------------------------------------------------------------------


class _AdaptivePool(Module):
    """Pooling to an output size over `rank` axes."""

    rank: ClassVar[int]

    def __init__(self, output_size: OutputSizes) -> None:
        super().__init__()
        sizes: Any = output_size
        if isinstance(output_size, Sequence) and self.rank > 1:
            sizes = tuple(1 if n is None else n for n in output_size)  # None keeps the size of the input
        check.sizes(type(self).__name__, "output_size", sizes, self.rank, least=1)
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    def forward(self, x: TensorLike) -> Tensor:
        return ADAPTIVE_AVG_POOLS[self.rank - 1](x, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of P windows that cover the input: x (N, C, L) -> (N, C, P). See `AdaptiveAvgPool2d`."""

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of P·P windows that cover the input: x (N, C, H, W) -> (N, C, P, P), `output_size` = P or a pair.

    Window i along H runs from floor(i·H / P) to ceil((i + 1)·H / P). None in a pair keeps the size of the input. Raises
    ValueError if `output_size` is not positive or x has other axes.
    """

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of P·P·P windows that cover the input: x (N, C, D, H, W) -> (N, C, P, P, P).

    See `AdaptiveAvgPool2d`.
    """

    rank = 3


class _AdaptiveMaxPool(_AdaptivePool):
    flags = ("return_indices",)

    def __init__(self, output_size: OutputSizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: TensorLike) -> Tensor | Any:  # Any: a pair, with return_indices
        return ADAPTIVE_MAX_POOLS[self.rank - 1](x, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of P windows that cover the input: x (N, C, L) -> (N, C, P). See `AdaptiveMaxPool2d`."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of P·P windows that cover the input: x (N, C, H, W) -> (N, C, P, P).

    Windows and `output_size` as in `AdaptiveAvgPool2d`; ties, NaN and `return_indices` as in `MaxPool2d`.
    """

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements of P·P·P windows that cover the input: x (N, C, D, H, W) -> (N, C, P, P, P).

    See `AdaptiveMaxPool2d`.
    """

    rank = 3
