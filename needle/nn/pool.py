"""Pooling layers, one body for all ranks."""

from __future__ import annotations

from needle import check
from needle.nn import functional
from needle.nn.module import Module


class _Pool(Module):
    """A pooling function over `rank` axes with its arguments."""

    function, rank, shown = "", 0, ()

    def __init__(self, **options):
        super().__init__()
        vars(self).update(options)
        self._options = tuple(options)

    def forward(self, x):
        function = getattr(functional, f"{self.function}{self.rank}d")
        return function(x, **{name: getattr(self, name) for name in self._options})

    def extra_repr(self):
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)


class _MaxPool(_Pool):
    function, shown = "max_pool", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            return_indices=return_indices,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """`functional.max_pool1d`."""

    rank = 1


class MaxPool2d(_MaxPool):
    """`functional.max_pool2d`."""

    rank = 2


class MaxPool3d(_MaxPool):
    """`functional.max_pool3d`."""

    rank = 3


class _AvgPool(_Pool):
    function, shown = "avg_pool", ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):  # fmt: skip
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AvgPool1d(_Pool):
    """`functional.avg_pool1d`."""

    function, rank, shown = _AvgPool.function, 1, _AvgPool.shown

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        sizes = {"kernel_size": kernel_size, "stride": kernel_size if stride is None else stride, "padding": padding}
        sizes = {name: check.sizes("AvgPool1d", name, value, 1) for name, value in sizes.items()}
        super().__init__(**sizes, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


class AvgPool2d(_AvgPool):
    """`functional.avg_pool2d`."""

    rank = 2


class AvgPool3d(_AvgPool):
    """`functional.avg_pool3d`."""

    rank = 3


class _AdaptiveAvgPool(_Pool):
    function, shown = "adaptive_avg_pool", ("output_size",)

    def __init__(self, output_size):
        super().__init__(output_size=output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool1d`."""

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool2d`."""

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool3d`."""

    rank = 3


class _AdaptiveMaxPool(_Pool):
    function, shown = "adaptive_max_pool", ("output_size",)

    def __init__(self, output_size, return_indices=False):
        super().__init__(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool1d`."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool2d`."""

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool3d`."""

    rank = 3
