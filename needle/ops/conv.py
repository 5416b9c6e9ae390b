"""Convolution: three ops, each the derivative of the others.

⟨y, conv(x, w)⟩ is linear in x, in w and in y. Its partial derivatives are `Correlate`, `CorrelateTranspose` and
`CorrelateWeight`, and the gradient of each is the other two. `docs/convolution.md` derives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from needle import check, kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.graph import Spec
from needle.kernels import Size, Window
from needle.ops.arithmetic import ADD
from needle.ops.base import Array, Gradients
from needle.ops.elementwise import RELU_GRAD
from needle.ops.operand import (
    are_plain,
    batched,
    check_channels,
    check_channels_transpose,
    check_fit,
    constant,
    conv_operands,
    conv_weight,
    make_window,
    tensor,
    transpose_sizes,
    unbatched,
    window_padding,
)
from needle.ops.reduce import Summation
from needle.ops.shape import Pad, Permute, Reshape

__all__ = ["conv"]


class Correlate(TensorOp):
    """Cross-correlate, and add an optional bias (O,): x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)."""

    saved_inputs = (0, 1)

    def __init__(self, window: Window) -> None:
        self.window = window

    def compute(self, x: Array, w: Array, *bias: Array) -> Array:
        return kernels.correlate(x, w, self.window, *bias)

    def infer(self, x: Any, w: Any, *bias: Any) -> Spec:
        return Spec((x.shape[0], w.shape[0], *self.window.output(x.shape[2:], w.shape[2:])), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, w, *bias = node.inputs
        grads: Gradients = (
            CorrelateTranspose(self.window, x.shape[2:])(out_grad, w) if x.requires_grad else None,
            CorrelateWeight(self.window, w.shape[2:])(x, out_grad) if w.requires_grad else None,
        )
        if bias:
            grads += (Summation(_all_but_channels(x))(out_grad) if bias[0].requires_grad else None,)
        return grads

    def compute_gradient(
        self, out_grad: Array, y: Array, x: Array, w: Array, *bias: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        """Compute the needed gradients; those in x and w run side by side on two threads if they are small."""
        return kernels.correlate_backward(out_grad, x, w, self.window, needed)


class RectifiedCorrelate(Correlate):
    """max(y, 0) of the y of Correlate, in its memory: the graph keeps one array less.

    Measured: a VGG (batch 32) keeps 35 MiB for backward instead of 49, LeNet (batch 64) 7.7 instead of 8.7; the peaks
    of their steps are 67 instead of 81 and 12.7 instead of 12.2. The time is the same. A y that is part of a larger
    array (tiles cover more than the outputs) is copied out of it.
    """

    saves_output = True

    def compute(self, x: Array, w: Array, *bias: Array) -> Array:
        return kernels.correlate_rectified(x, w, self.window, *bias)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return super().gradient(RELU_GRAD(out_grad, constant(node)), node)

    def compute_gradient(
        self, out_grad: Array, y: Array, x: Array, w: Array, *bias: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        return kernels.correlate_backward(out_grad, x, w, self.window, needed, y)


class CorrelateTranspose(TensorOp):
    """The derivative in x, of sizes `size`, plus an optional bias (C,): y (N, O, *P), w (O, C/G, *K) -> (N, C, *S)."""

    saved_inputs = (0, 1)

    def __init__(self, window: Window, size: Size) -> None:
        self.window, self.size = window, size

    def compute(self, y: Array, w: Array, *bias: Array) -> Array:
        if bias:
            return kernels.correlate_transpose_biased(y, w, self.window, self.size, *bias)
        return kernels.correlate_transpose(y, w, self.window, self.size)

    def infer(self, y: Any, w: Any, *bias: Any) -> Spec:
        return Spec((y.shape[0], w.shape[1] * self.window.groups, *self.size), y.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        y, w, *bias = node.inputs
        grads: Gradients = (
            Correlate(self.window)(out_grad, w) if y.requires_grad else None,
            CorrelateWeight(self.window, w.shape[2:])(out_grad, y) if w.requires_grad else None,
        )
        if bias:
            grads += (Summation(_all_but_channels(y))(out_grad) if bias[0].requires_grad else None,)
        return grads

    def compute_gradient(
        self, out_grad: Array, x: Array, y: Array, w: Array, *bias: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        return kernels.correlate_transpose_backward(out_grad, y, w, self.window, needed)


class CorrelateWeight(TensorOp):
    """The derivative in w, of sizes `kernel`: x (N, C, *S), y (N, O, *P) -> w (O, C/G, *K)."""

    def __init__(self, window: Window, kernel: Size) -> None:
        self.window, self.kernel = window, kernel

    def compute(self, x: Array, y: Array) -> Array:
        return kernels.correlate_weight(x, y, self.window, self.kernel)

    def infer(self, x: Any, y: Any) -> Spec:
        return Spec((y.shape[1], x.shape[1] // self.window.groups, *self.kernel), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, y = node.inputs
        return (
            CorrelateTranspose(self.window, x.shape[2:])(y, out_grad) if x.requires_grad else None,
            Correlate(self.window)(x, out_grad) if y.requires_grad else None,
        )


class Unfold(TensorOp):
    """The columns of x (im2col): (N, C, *S) -> (N, C·K, P)."""

    saved_inputs = ()

    def __init__(self, window: Window, kernel: Size) -> None:
        self.window, self.kernel = window, kernel

    def compute(self, x: Array) -> Array:
        return kernels.unfold(x, self.window, self.kernel)

    def infer(self, x: Any) -> Spec:
        positions = self.window.output(x.shape[2:], self.kernel)
        return Spec((x.shape[0], x.shape[1] * math.prod(self.kernel), math.prod(positions)), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return Fold(self.window, self.kernel, node.inputs[0].shape[2:])(out_grad)


class Fold(TensorOp):
    """The transpose of Unfold (col2im): columns added back in their places, (N, C·K, P) -> (N, C, *S)."""

    saved_inputs = ()

    def __init__(self, window: Window, kernel: Size, size: Size) -> None:
        self.window, self.kernel, self.size = window, kernel, size

    def compute(self, columns: Array) -> Array:
        return kernels.fold(columns, self.window, self.kernel, self.size)

    def infer(self, columns: Any) -> Spec:
        return Spec((columns.shape[0], columns.shape[1] // math.prod(self.kernel), *self.size), columns.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return Unfold(self.window, self.kernel)(out_grad)


def _all_but_channels(x: Any) -> Size:
    """The axes of x (N, C, *S) over which a bias gradient sums."""
    return (0, *range(2, x.ndim))


# ---- functions -------------------------------------------------------------------------------------------------------


def convolve(
    op: str, rank: int, x: TensorLike, w: TensorLike, bias: TensorLike | None,
    stride: Any, padding: Any, dilation: Any, groups: Any, rectified: bool = False,
) -> Tensor:  # fmt: skip
    """Cross-correlate x (N, C, *S) or (C, *S) with w (O, C/G, *K) over `rank` axes, plus bias (O,): (N, O, *P).

    `op` is the caller's name, for its errors. Each option is one integer or one per axis; `padding` may also hold a
    pair (before, after) per axis, or be "valid" or "same". With `rectified`, relu of the result. Raises ValueError if
    shapes or options do not fit together, TypeError if dtypes or devices do not.
    """
    x, had_batch = batched(op, x, rank)
    w = conv_weight(op, x, w, "x (N, C, *S) and weight (O, C/G, *K)")
    options = (stride, padding, dilation, groups)
    correlate = (_correlate_cached if are_plain(options) else _correlate)(op, x.shape, w.shape, *options, rectified)
    operands = conv_operands(op, x, w, bias, w.shape[0])
    return unbatched(correlate(*operands), had_batch)


def _correlate(
    op: str, x_shape: Size, w_shape: Size, stride: Any, padding: Any, dilation: Any, groups: Any, rectified: bool
) -> Correlate:
    """The op for x (N, C, *S) and w (O, C/G, *K), if these and the options fit together."""
    kernel = w_shape[2:]
    padding = window_padding(op, padding, kernel, stride, dilation)
    window = make_window(op, len(kernel), stride, padding, dilation, groups)
    check_channels(op, x_shape, w_shape, window.groups)
    check_fit(op, x_shape, kernel, window)
    return (RectifiedCorrelate if rectified else Correlate)(window)


_correlate_cached = lru_cache(maxsize=1024)(_correlate)  # a network asks for the same ones in every step


def convolve_transpose(
    op: str, rank: int, x: TensorLike, w: TensorLike, bias: TensorLike | None,
    stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    """The transpose of `convolve` in its input: x (N, C, *P) or (C, *P), w (C, O/G, *K), bias (O,) -> (N, O, *S).

    S = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1: the smallest size that a convolution
    with this window maps to P, plus `output_padding` at the end. Errors as in `convolve`.
    """
    x, had_batch = batched(op, x, rank)
    w = conv_weight(op, x, w, "x (N, C, *P) and weight (C, O/G, *K)")
    window = make_window(op, rank, stride, padding, dilation, groups)
    x, w, *biases = conv_operands(op, x, w, bias, w.shape[1] * window.groups)
    check_channels_transpose(op, x, w, window.groups)
    least, size = transpose_sizes(op, x, w.shape[2:], window, output_padding)
    # Output padding shortens the padding after; elements beyond the last window are zeros.
    pairs = tuple(
        (min(before, n + before + after), max(0, after - (m - n)))
        for n, m, (before, after) in zip(least, size, window.padding, strict=True)
    )
    window = replace(window, padding=pairs)
    reached = window.input(x.shape[2:], w.shape[2:])
    if reached == size:
        return unbatched(CorrelateTranspose(window, size)(x, w, *biases), had_batch)
    y = CorrelateTranspose(window, reached)(x, w)
    y = Pad(((0, 0), (0, 0), *((0, n - m) for n, m in zip(size, reached, strict=True))), 0)(y)
    if biases:
        y = ADD(y, Reshape((1, -1) + (1,) * rank)(*biases))
    return unbatched(y, had_batch)


def to_columns(op: str, x: Tensor, kernel: Size, *, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The input elements under the kernel at each position: (N, C, *S) -> (N, C·K, P), row-major in channel and tap."""
    window = make_window(op, len(kernel), stride, padding, dilation)
    check_fit(op, x.shape, kernel, window)
    check.floats(op, x=x)
    return Unfold(window, kernel)(x)


def from_columns(
    op: str, x: Tensor, size: Size, kernel: Size, *, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The transpose of `to_columns`: columns added back in their places, (N, C·K, P) -> (N, C, *S), S = `size`."""
    window = make_window(op, len(kernel), stride, padding, dilation)
    positions, taps = window.output(size, kernel), math.prod(kernel)
    if min(positions) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded output, but its extent is {window.extent(kernel)} "
            f"and the padded output_size {size} is {window.padded(size)}"
        )
    if x.ndim != 3 or x.shape[1] % taps or x.shape[2] != math.prod(positions):
        raise ValueError(
            f"{op}: x must be (N, C·{taps}, {' x '.join(map(str, positions))}) for output_size {size}, "
            f"but got {x.shape}"
        )
    check.floats(op, x=x)
    return Fold(window, kernel, size)(x)


def conv(x: TensorLike, weight: TensorLike, stride: Any = 1, padding: Any = 1) -> Tensor:
    """The course's convolution: x `(N, H, W, C)`, weight `(K, L, C, O)` -> `(N, P, Q, O)`, by default with padding 1.

    Cross-correlation, as in `functional.conv2d`, which explains `stride` and `padding`: P = (H + 2·padding - K) /
    stride + 1, rounded down, and Q likewise from W and L. The operands and the result have the same floating dtype;
    float16 accumulates in float32.

    Raises `ValueError` if shapes or options do not fit together, with sizes in the order (N, C, H, W); `TypeError` if
    dtypes or devices do not.
    """
    x, weight = tensor("conv", x), tensor("conv", weight)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"conv: x must be (N, H, W, C) and weight (K, L, C, O), but got shapes {x.shape} and {weight.shape}"
        )
    x, weight = Permute((0, 3, 1, 2))(x), Permute((3, 2, 0, 1))(weight)
    return Permute((0, 2, 3, 1))(convolve("conv", 2, x, weight, None, stride, padding, 1, 1))


