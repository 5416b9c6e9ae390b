"""Convolution layers, one body for all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check, init
from needle.kernels import Window
from needle.nn import functional
from needle.nn.module import Module, Parameter
from needle.ops import permute
from needle.ops.conv import named_padding
from needle.ops.operand import tensor

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What convolutions share: options, and torch's weight layout and initialisation, over `rank` spatial axes.

    Weight and bias are drawn uniformly within ± 1 / sqrt(fan in), which is kaiming_uniform with a = sqrt(5).
    """

    rank = 0
    transposed = False
    output_padding = ()
    padding_mode = "zeros"

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype):
        super().__init__()
        name = type(self).__name__
        self.in_channels = check.integer(name, "in_channels", in_channels, least=1)
        self.out_channels = check.integer(name, "out_channels", out_channels, least=1)
        self.kernel_size = check.sizes(name, "kernel_size", kernel_size, self.rank, least=1)
        pairs = padding
        if isinstance(padding, str) and not self.transposed:
            pairs = named_padding(name, padding, self.kernel_size, stride, dilation)
        window = Window.make(name, self.rank, stride, pairs, dilation, groups)
        self.stride, self.dilation, self.groups = window.stride, window.dilation, window.groups
        self.pairs = window.padding
        symmetric = all(before == after for before, after in self.pairs)
        self.padding = (
            padding if isinstance(padding, str) else tuple(b for b, _ in self.pairs) if symmetric else self.pairs
        )
        if in_channels % self.groups or out_channels % self.groups:
            raise ValueError(
                f"{name}: groups must divide in_channels and out_channels, but got groups={groups} for "
                f"{in_channels} and {out_channels}"
            )
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(init.conv_fans(shape)[0])
        options = {"low": -bound, "high": bound, "device": device, "dtype": dtype}
        self.weight = Parameter(init.rand(*shape, **options))
        self.bias = Parameter(init.rand(out_channels, **options)) if bias else None

    def extra_repr(self):
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"padding={self.padding}"] * (isinstance(self.padding, str) or self.pairs != ((0, 0),) * self.rank)
        parts += [f"dilation={self.dilation}"] * (set(self.dilation) != {1})
        parts += [f"output_padding={self.output_padding}"] * any(self.output_padding)
        parts += [f"groups={self.groups}"] * (self.groups != 1)
        parts += ["bias=False"] * (self.bias is None)
        parts += [f"padding_mode={self.padding_mode}"] * (self.padding_mode != "zeros")
        return ", ".join(parts)


class _ConvForward(_Conv):
    """Convolution; `padding_mode` fills the padding with zeros, or as `functional.pad` does in its other modes."""

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
        padding_mode="zeros", device=None, dtype="float32",
    ):  # fmt: skip
        check.one_of(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype
        )
        self.padding_mode = padding_mode

    def forward(self, x):
        convolution, padding = getattr(functional, f"conv{self.rank}d"), self.pairs
        if self.padding_mode != "zeros":
            flat = tuple(n for pair in reversed(self.pairs) for n in pair)
            x, padding = functional.pad(x, flat, mode=self.padding_mode), 0
        return convolution(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Conv):
    """The size of the output may be asked for: `forward(x, output_size=(H, W))`."""

    transposed = True

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True,
        dilation=1, padding_mode="zeros", device=None, dtype="float32",
    ):  # fmt: skip
        check.one_of(type(self).__name__, "padding_mode", padding_mode, ("zeros",))
        more = check.sizes(type(self).__name__, "output_padding", output_padding, self.rank)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype
        )
        self.output_padding = more

    def forward(self, x, output_size=None):
        output_padding = self.output_padding if output_size is None else self._more(x, output_size)
        transposed = getattr(functional, f"conv_transpose{self.rank}d")
        return transposed(
            x, self.weight, self.bias, self.stride, self.pairs, output_padding, self.groups, self.dilation
        )

    def _more(self, x, output_size):
        """The output padding that gives `output_size`, the spatial sizes or the whole shape."""
        name, window = type(self).__name__, Window(self.stride, self.pairs, self.dilation)
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"{name}: x must have {self.rank + 2} axes, or {self.rank + 1} without a batch, but got shape {x.shape}"
            )
        if isinstance(output_size, Sequence) and len(output_size) == x.ndim:
            output_size = output_size[-self.rank :]
        wanted = check.sizes(name, "output_size", output_size, self.rank, least=1)
        least = window.input(x.shape[-self.rank :], self.kernel_size)
        most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
        if any(not low <= n <= high for low, n, high in zip(least, wanted, most, strict=True)):
            raise ValueError(f"{name}: output_size must lie between {least} and {most}, but got {wanted}")
        return tuple(n - low for n, low in zip(wanted, least, strict=True))


class Conv1d(_ConvForward):
    """`functional.conv1d` with weight (O, C/G, K) and bias (O,), drawn uniformly within ± 1 / sqrt(C/G·K)."""

    rank = 1


class Conv2d(_ConvForward):
    """`functional.conv2d` with weight (O, C/G, K, K) and bias (O,), drawn uniformly within ± 1 / sqrt(C/G·K·K)."""

    rank = 2


class Conv3d(_ConvForward):
    """`functional.conv3d` with weight (O, C/G, K, K, K) and bias (O,), drawn uniformly within ± 1 / sqrt(C/G·K·K·K)."""

    rank = 3


class Conv(Module):
    """`functional.conv2d` with "same" padding at stride 1, for odd kernels: (N, C, H, W) -> (N, O, P, P).

    The layer of the course: `weight` (K, K, C, O) is drawn by kaiming_uniform of fan C·K·K, then `bias` (O,) uniformly
    within ± 1 / sqrt(C·K·K). The padding is K // 2 on each side. Of tuples as `kernel_size` and `stride` the first
    entry counts. x is brought to the dtype of `weight` first.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, bias=True, device=None, dtype="float32"
    ):  # fmt: skip
        super().__init__()
        self.in_channels = check.integer("Conv", "in_channels", in_channels, least=1)
        self.out_channels = check.integer("Conv", "out_channels", out_channels, least=1)
        self.kernel_size = check.integer("Conv", "kernel_size", _first(kernel_size), least=1)
        self.stride = check.integer("Conv", "stride", _first(stride), least=1)
        k, options = self.kernel_size, {"device": device, "dtype": dtype}
        shape = (k, k, self.in_channels, self.out_channels)
        fan_in, fan_out = self.in_channels * k * k, self.out_channels * k * k
        self.weight = Parameter(init.kaiming_uniform(fan_in, fan_out, shape=shape, **options))
        bound = 1 / math.sqrt(fan_in)
        self.bias = Parameter(init.rand(self.out_channels, low=-bound, high=bound, **options)) if bias else None

    def forward(self, x):
        x = tensor("Conv", x).astype(self.weight.dtype)
        weight = permute(self.weight, (3, 2, 0, 1))
        return functional.conv2d(x, weight, self.bias, self.stride, self.kernel_size // 2)

    def extra_repr(self):
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}{bias}"


class ConvTranspose1d(_ConvTranspose):
    """`functional.conv_transpose1d` with weight (C, O/G, K) and bias (O,), uniform within ± 1 / sqrt(O/G·K)."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """`functional.conv_transpose2d` with weight (C, O/G, K, K) and bias (O,), uniform within ± 1 / sqrt(O/G·K·K)."""

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """`functional.conv_transpose3d` with weight (C, O/G, K, K, K) and bias (O,), within ± 1 / sqrt(O/G·K·K·K)."""

    rank = 3


def _first(value):
    """The first entry of a sequence that has one, or the value itself."""
    return value[0] if isinstance(value, Sequence) and len(value) else value


class _Columns(Module):
    """Options of the layers around `functional.unfold`; they have no parameters."""

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


class Unfold(_Columns):
    """`functional.unfold`: (N, C, *S) -> (N, C·K, P)."""

    def forward(self, x):
        return functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Columns):
    """`functional.fold` to `output_size`: (N, C·K, P) -> (N, C, *S)."""

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, x):
        return functional.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self):
        return f"output_size={self.output_size}, {super().extra_repr()}"
