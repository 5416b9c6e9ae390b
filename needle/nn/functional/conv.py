"""Convolution over one, two or three axes, its transpose, and its columns (im2col, col2im), under torch's names.

Inputs may lack the batch axis: (C, *S) -> (O, *P).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from needle import check, kernels
from needle.autograd import Tensor, TensorLike
from needle.ops.conv import convolve, convolve_transpose, from_columns, to_columns
from needle.ops.copies import apart
from needle.ops.operand import batched, spatial_sizes, unbatched

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "same_padding",
    "unfold",
]

Sizes: TypeAlias = int | Sequence[int]  # one for all spatial axes, or one per axis
Padding: TypeAlias = str | Sizes | Sequence[tuple[int, int]]  # also "valid", "same", or (before, after) per axis


def conv1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate x (N, C, L) with weight (O, C/G, K), plus bias (O,): (N, O, P).

    P = floor((L + 2·padding - dilation·(K - 1) - 1) / stride) + 1. Options and errors as in `conv2d`, one number each.
    """
    return convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate x (N, C, H, W) with weight (O, C/G, K, K), plus bias (O,): (N, O, P, P).

    Along each axis P = floor((H + 2·padding - dilation·(K - 1) - 1) / stride) + 1. x may lack N. The options:

    | option | value |
    |---|---|
    | `stride`, `dilation` | one integer or a pair, at least 1 |
    | `padding` | zeros on each side: one integer or a pair, or (before, after) for each axis |
    | | `"valid"`: none; `"same"`: P = H, at stride 1 only (for other strides see `same_padding`) |
    | `groups` | G: the channels are split into G groups, each convolved with its own O/G filters |

    All operands share one floating dtype and one device.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` if dtypes or devices do not.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), section 2.

    >>> import needle as ndl
    >>> x, weight = ndl.ones(1, 1, 3, 3), ndl.ones(1, 1, 2, 2)
    >>> ndl.conv2d(x, weight).numpy().tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    return convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate x (N, C, D, H, W) with weight (O, C/G, K, K, K), plus bias (O,): (N, O, P, P, P).

    Options and errors as in `conv2d`, with triples for pairs.
    """
    return convolve("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Sizes | Sequence[tuple[int, int]] = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv1d` in its input, plus bias (O,): x (N, C, P), weight (C, O/G, K) -> (N, O, L).

    L = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1. Options and errors as in `conv_transpose2d`.
    """
    return convolve_transpose(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Sizes | Sequence[tuple[int, int]] = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv2d` in its input, plus bias (O,): x (N, C, P, P), weight (C, O/G, K, K) -> (N, O, H, W).

    Along each axis H = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1. A strided convolution maps
    several sizes H to one P; `output_padding`, less than the larger of stride and dilation, selects among them. The
    other options are as in `conv2d`, without "valid" and "same". x may lack N.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` if dtypes or devices do not.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), section 4.

    >>> import needle as ndl
    >>> x, weight = ndl.ones(1, 1, 2, 2), ndl.ones(1, 1, 2, 2)
    >>> ndl.nn.functional.conv_transpose2d(x, weight).numpy().tolist()
    [[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]
    """
    return convolve_transpose(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Sizes | Sequence[tuple[int, int]] = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv3d`, plus bias (O,): x (N, C, P, P, P), weight (C, O/G, K, K, K) -> (N, O, D, H, W).

    Options and errors as in `conv_transpose2d`, with triples for pairs.
    """
    return convolve_transpose(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def unfold(x: TensorLike, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """Extract the patch under each kernel position (im2col): x (N, C, *S) -> (N, C·K, P), or the same without N.

    `kernel_size` has one entry per spatial axis, for any number of axes; one integer means two. Rows run
    over channels, then kernel positions; columns over output positions; all row-major.

    Raises `ValueError` if the kernel does not fit into the padded input, `TypeError` unless the dtype of x is floating.

    >>> import needle as ndl
    >>> unfold(ndl.Tensor([[[1.0, 2.0, 3.0, 4.0]]]), (3,)).numpy().tolist()
    [[[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]]
    """
    kernel = spatial_sizes("unfold", "kernel_size", kernel_size)
    x, had_batch = batched("unfold", x, len(kernel))
    columns = to_columns("unfold", x, kernel, dilation=dilation, padding=padding, stride=stride)
    return apart(unbatched(columns, had_batch), x)


def fold(
    x: TensorLike,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """Add patches back in place (col2im), the transpose of `unfold`: x (N, C·K, P) -> (N, C, *S), or without N.

    `output_size` is S and `kernel_size` K, for any number of spatial axes; one integer means two axes.

    Raises `ValueError` if x does not have the rows and columns of that window, `TypeError` unless its dtype is
    floating.

    >>> import needle as ndl
    >>> fold(ndl.ones(1, 3, 2), (4,), (3,)).numpy().tolist()
    [[[1.0, 2.0, 2.0, 1.0]]]
    """
    size = spatial_sizes("fold", "output_size", output_size)
    kernel = spatial_sizes("fold", "kernel_size", kernel_size)
    check.same("fold", "length", len(size), len(kernel), ("output_size", "kernel_size"))
    x, had_batch = batched("fold", x, 1, axes="C·K, P")
    y = from_columns("fold", x, size, kernel, dilation=dilation, padding=padding, stride=stride)
    return unbatched(y, had_batch)


def same_padding(
    size: Sequence[int], kernel_size: Sizes, stride: Sizes = 1, dilation: Sizes = 1
) -> tuple[tuple[int, int], ...]:
    """The padding (before, after) per axis for which a convolution maps sizes *S, `size`, to ceil(S / stride).

    This is TensorFlow's "SAME" padding, at any stride: if the total is odd, the larger half goes after. Other options
    as in `conv2d`.

    Raises `ValueError` or `TypeError` unless all numbers are positive integers.

    >>> same_padding((5, 6), 3, stride=2)
    ((1, 1), (0, 1))
    """
    rank = len(check.instance("same_padding", "size", size, Sequence))
    return kernels.same_padding(
        check.sizes("same_padding", "size", size, rank, least=1),
        check.sizes("same_padding", "kernel_size", kernel_size, rank, least=1),
        check.sizes("same_padding", "stride", stride, rank, least=1),
        check.sizes("same_padding", "dilation", dilation, rank, least=1),
    )
