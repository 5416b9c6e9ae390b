"""Convolution layers: one body for 1, 2 and 3 spatial axes, and one for their transposes.

Shapes: N batch, C in-channels, O out-channels, G groups, *S input size, *K kernel, *P output size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.kernels import Window
from needle.nn import functional
from needle.nn.functional.conv import Padding, Sizes
from needle.nn.module import Module
from needle.nn.parameter import Parameter
from needle.ops import permute
from needle.ops.conv import convolve
from needle.ops.operand import cast_like, has_batch, make_window, spatial_sizes, tensor, window_padding, window_sizes

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Fold",
    "Unfold",
]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
TRANSPOSES = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


class _Conv(Module):
    """Options, weight and bias of a convolution over `rank` spatial axes, in torch's layout and initialization.

    Weight and bias are drawn uniformly within ± 1 / sqrt(fan_in): kaiming_uniform with a = sqrt(5), as in torch.
    """

    rank: ClassVar[int]
    transposed: ClassVar[bool] = False
    output_padding: Sizes = ()
    bias: Tensor | None
    padding_mode: str = "zeros"
    fixed: ClassVar[tuple[str, ...]] = ("in_channels", "out_channels", "kernel_size", "groups")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes, padding: Padding, dilation: Sizes,
        groups: int, bias: bool, device: Device | None, dtype: DTypeLike,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.in_channels = check.integer(name, "in_channels", in_channels, least=1)
        self.out_channels = check.integer(name, "out_channels", out_channels, least=1)
        self.kernel_size = check.sizes(name, "kernel_size", kernel_size, self.rank, least=1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        window = self._window()
        self.stride, self.dilation, self.groups = window.stride, window.dilation, window.groups
        if not isinstance(padding, str):
            is_symmetric = all(before == after for before, after in window.padding)
            self.padding = tuple(before for before, _ in window.padding) if is_symmetric else window.padding
        if in_channels % self.groups or out_channels % self.groups:
            raise ValueError(
                f"{name}: groups must divide in_channels and out_channels, but got groups={groups} for "
                f"{in_channels} and {out_channels}"
            )
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(init.conv_fans(shape)[0])
        self.weight: Tensor = Parameter(init.rand(*shape, low=-bound, high=bound, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if check.instance(name, "bias", bias, bool):
            self.bias = Parameter(init.rand(out_channels, low=-bound, high=bound, device=device, dtype=dtype))

    def _window(self) -> Window:
        """The window that the options make now; they may have changed since the layer was made."""
        name, padding = type(self).__name__, self.padding
        if isinstance(padding, str) and not self.transposed:
            padding = window_padding(name, padding, self.kernel_size, self.stride, self.dilation)
        return make_window(name, self.rank, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if not _is_all(self.padding, 0):
            parts.append(f"padding={self.padding}")
        if not _is_all(self.dilation, 1):
            parts.append(f"dilation={self.dilation}")
        if not _is_all(self.output_padding, 0):
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


def _is_all(value: Any, number: int) -> bool:
    """Whether an option is `number` for all axes; anything else is no error, since options are printed as they are."""
    return all(_is_all(v, number) for v in value) if isinstance(value, (tuple, list)) else value == number


# ---- convolution -----------------------------------------------------------------------------------------------------


class _ConvForward(_Conv):
    """Convolution; `padding_mode` fills the padding with zeros, or as `functional.pad` does in its other modes."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        check.one_of(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype)
        self.padding_mode = padding_mode

    def forward(self, x: TensorLike) -> Tensor:
        return self._convolved(x, rectified=False)

    def forward_relu(self, x: TensorLike) -> Tensor:
        return self._convolved(x, rectified=True)

    def _convolved(self, x: TensorLike, rectified: bool) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            amounts = tuple(n for pair in reversed(self._window().padding) for n in pair)
            x, padding = functional.pad(x, amounts, mode=self.padding_mode), 0
        options = (self.stride, padding, self.dilation, self.groups, rectified)
        return convolve(f"conv{self.rank}d", self.rank, x, self.weight, self.bias, *options)


class Conv1d(_ConvForward):
    """Cross-correlate x (N, C, L) or (C, L) with `weight`, plus `bias`: (N, O, P) or (O, P).

    `weight` is (O, C/G, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(C/G·K). Options, output size, dtypes and errors as in `Conv2d`, with one number each.
    """

    rank = 1


class Conv2d(_ConvForward):
    """Cross-correlate x (N, C, H, W) or (C, H, W) with `weight`, plus `bias`: (N, O, P, P) or (O, P, P).

    `weight` is (O, C/G, K, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(C/G·K·K), first the weight, then the bias.

    `kernel_size`, `stride`, `padding` and `dilation` are one integer or a pair. `padding` may also be a pair (before,
    after) for each axis, "valid" (none), or "same" (P = H, at stride 1 only). `padding_mode` is "zeros", "reflect",
    "replicate" or "circular". Along each axis P = floor((H + 2·padding - dilation·(K - 1) - 1) / stride) + 1.

    x must have the dtype of `weight`, a floating one (TypeError). Raises ValueError if options or shapes do not fit.

    Dumoulin and Visin, "A Guide to Convolution Arithmetic for Deep Learning" (2016), for the sizes.

    >>> import needle as ndl
    >>> Conv2d(3, 16, 3, stride=2, padding=1)(ndl.ones(8, 3, 32, 32)).shape
    (8, 16, 16, 16)
    """

    rank = 2


class Conv3d(_ConvForward):
    """Cross-correlate x (N, C, D, H, W) or (C, D, H, W) with `weight`, plus `bias`: (N, O, P, P, P) or (O, P, P, P).

    `weight` is (O, C/G, K, K, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(C/G·K·K·K). Options, output size, dtypes and errors as in `Conv2d`, with triples.
    """

    rank = 3


class Conv(Module):
    """The course's convolution, with padding K // 2 on each side: x (N, C, H, W) -> (N, O, P, P).

    `weight` is (K, K, C, O), drawn by `init.kaiming_uniform` with fan_in = C·K·K, then `bias` (O,) uniformly within
    ± 1 / sqrt(C·K·K); `bias=False` leaves it None. An odd K at stride 1 keeps the size: P = H. Tuples are accepted for
    `kernel_size` and `stride`; only the first entry is used. x of another floating dtype is cast to that of `weight`.
    Raises ValueError if sizes are not positive or shapes do not fit, TypeError if x is not floating-point.
    """

    bias: Tensor | None
    fixed = ("in_channels", "out_channels", "kernel_size")
    layouts: ClassVar = {"weight": (2, 3, 1, 0)}

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, bias: bool = True,
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels = check.integer("Conv", "in_channels", in_channels, least=1)
        self.out_channels = check.integer("Conv", "out_channels", out_channels, least=1)
        self.kernel_size = check.integer("Conv", "kernel_size", _first(kernel_size), least=1)
        self.stride = check.integer("Conv", "stride", _first(stride), least=1)
        k = self.kernel_size
        shape = (k, k, self.in_channels, self.out_channels)
        fan_in, fan_out = self.in_channels * k * k, self.out_channels * k * k
        self.weight: Tensor = Parameter(init.kaiming_uniform(fan_in, fan_out, shape=shape, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if check.instance("Conv", "bias", bias, bool):
            bound = 1 / math.sqrt(fan_in)
            self.bias = Parameter(init.rand(self.out_channels, low=-bound, high=bound, device=device, dtype=dtype))

    def forward(self, x: TensorLike) -> Tensor:
        x = cast_like("Conv", x, self.weight)
        weight = permute(self.weight, (3, 2, 0, 1))
        return functional.conv2d(x, weight, self.bias, self.stride, self.kernel_size // 2)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}{bias}"


def _first(value: Any) -> Any:
    """The first entry of a non-empty sequence, or the value itself."""
    return value[0] if isinstance(value, Sequence) and len(value) else value


# ---- transposed convolution ------------------------------------------------------------------------------------------


class _ConvTranspose(_Conv):
    """The transpose of a convolution; `forward` may ask for one of the sizes that the stride leaves open."""

    transposed = True
    fixed = (*_Conv.fixed, "padding_mode")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1, padding_mode: str = "zeros",
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        name = type(self).__name__
        self.padding_mode: str = check.one_of(name, "padding_mode", padding_mode, ("zeros",))
        extra = window_sizes(name, "output_padding", output_padding, self.rank)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype)
        self.output_padding = extra

    def forward(self, x: TensorLike, output_size: Sizes | None = None) -> Tensor:
        output_padding = self.output_padding if output_size is None else self._output_padding(x, output_size)
        return TRANSPOSES[self.rank - 1](
            x, self.weight, self.bias, self.stride, self._window().padding, output_padding, self.groups, self.dilation
        )

    def _output_padding(self, x: TensorLike, output_size: Sizes) -> tuple[int, ...]:
        """The output padding for which the output has `output_size`: spatial sizes, or a full shape."""
        name, window = type(self).__name__, self._window()
        x = tensor(name, x)
        has_batch(name, x, self.rank)
        if isinstance(output_size, Sequence) and len(output_size) == x.ndim:
            output_size = output_size[-self.rank :]
        size = check.sizes(name, "output_size", output_size, self.rank, least=1)
        smallest = window.input(x.shape[-self.rank :], self.kernel_size)
        largest = tuple(n + s - 1 for n, s in zip(smallest, window.stride, strict=True))
        if any(not low <= n <= high for low, n, high in zip(smallest, size, largest, strict=True)):
            raise ValueError(f"{name}: output_size must lie between {smallest} and {largest}, but got {size}")
        return tuple(n - low for n, low in zip(size, smallest, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """The transpose of `Conv1d` in its input: x (N, C, P) or (C, P) -> (N, O, L) or (O, L).

    `weight` is (C, O/G, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(O/G·K). Options, output size, dtypes and errors as in `ConvTranspose2d`, with one number each.
    """

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of `Conv2d` in its input: x (N, C, P, P) or (C, P, P) -> (N, O, H, W) or (O, H, W).

    `weight` is (C, O/G, K, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(O/G·K·K), first the weight, then the bias.

    Along each axis H = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1. A strided convolution maps
    several sizes to one P; `output_padding`, less than the larger of stride and dilation, or `output_size` in the call,
    `layer(x, output_size=(H, W))`, picks one. `padding` is one integer, a pair, or a pair (before, after) for each
    axis; `padding_mode` is "zeros" only.

    x must have the dtype of `weight`, a floating one (TypeError). Raises ValueError if options or shapes do not fit.

    Dumoulin and Visin, "A Guide to Convolution Arithmetic for Deep Learning" (2016), for the sizes.

    >>> import needle as ndl
    >>> up = ConvTranspose2d(4, 2, 3, stride=2, padding=1)
    >>> up(ndl.ones(1, 4, 8, 8)).shape, up(ndl.ones(1, 4, 8, 8), output_size=16).shape
    ((1, 2, 15, 15), (1, 2, 16, 16))
    """

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of `Conv3d` in its input: x (N, C, P, P, P) or (C, P, P, P) -> (N, O, D, H, W) or (O, D, H, W).

    `weight` is (C, O/G, K, K, K) and `bias` (O,), or None with `bias=False`. Both are drawn uniformly within
    ± 1 / sqrt(O/G·K·K·K). Options, output size, dtypes and errors as in `ConvTranspose2d`, with triples.
    """

    rank = 3


# ---- columns ---------------------------------------------------------------------------------------------------------


class _Columns(Module):
    """Options of `Unfold` and `Fold`, which have no parameters."""

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> None:
        super().__init__()
        name = type(self).__name__
        self.rank = len(spatial_sizes(name, "kernel_size", kernel_size))
        make_window(name, self.rank, stride, padding, dilation)
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Unfold(_Columns):
    """Copy the patch under each kernel position into a column (im2col): x (N, C, *S) -> (N, C·K, P).

    K and P are products over the spatial axes. `kernel_size` has one entry for each of them; one integer stands for
    two axes. Rows run over channels and taps, columns over output positions, both row-major. The result has the dtype
    of x. Raises ValueError if the kernel does not fit, TypeError if x is not floating-point.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Columns):
    """Add each column back in its place (col2im), the transpose of `Unfold`: x (N, C·K, P) -> (N, C, *S).

    `output_size` is *S, one entry for each spatial axis; one integer stands for two axes. The result has the dtype of
    x. Raises ValueError if x does not have the rows and columns of that window, TypeError if x is not floating-point.
    """

    def __init__(
        self, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, dilation, padding, stride)
        rank = len(spatial_sizes("Fold", "output_size", output_size))
        check.same("Fold", "length", rank, self.rank, ("output_size", "kernel_size"))
        self.output_size = output_size

    def forward(self, x: TensorLike) -> Tensor:
        return functional.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"
