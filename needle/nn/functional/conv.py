"""Convolution over one, two or three axes, its transpose and its columns, under torch's names.

Inputs may lack the batch axis: (C, *S) gives (O, *P).
"""

from __future__ import annotations

from collections.abc import Sequence

from needle import check, kernels
from needle.ops.conv import convolve, convolve_transpose, from_columns, to_columns
from needle.ops.operand import tensor
from needle.ops.shape import with_batch


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, L) with weight (O, C/G, K), plus bias (O,): (N, O, P).

    P = floor((L + 2·padding - dilation·(K - 1) - 1) / stride) + 1. Options and errors as in `conv2d`, with one number.
    """
    return convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, H, W) with weight (O, C/G, K, K), plus bias (O,): (N, O, P, P).

    Each option is one integer or a pair. P = floor((H + 2·padding - dilation·(K - 1) - 1) / stride) + 1 for each axis.
    `padding` may also be a pair (before, after) for each axis, "valid" (none) or "same" (P = H, at stride 1 only;
    `same_padding` gives the padding for P = ceil(H / stride)). Raises ValueError where shapes or options do not fit
    together, TypeError where dtypes do not.

    >>> import needle as ndl
    >>> x, weight = ndl.ones(1, 1, 3, 3), ndl.ones(1, 1, 2, 2)
    >>> ndl.conv2d(x, weight).numpy().tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    return convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, D, H, W) with weight (O, C/G, K, K, K), plus bias (O,): (N, O, P, P, P).

    Options and errors as in `conv2d`, with triples.
    """
    return convolve("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `conv1d` in its input, plus bias (O,): x (N, C, P), weight (C, O/G, K) -> (N, O, L).

    L = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1. Options and errors as in `conv_transpose2d`.
    """
    return convolve_transpose(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `conv2d` in its input, plus bias (O,): x (N, C, P, P), weight (C, O/G, K, K) -> (N, O, H, W).

    H = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1 for each axis. A strided convolution brings
    several sizes to one P: `output_padding`, below stride or dilation, picks the larger ones. Raises ValueError where
    shapes or options do not fit together, TypeError where dtypes do not.

    >>> import needle as ndl
    >>> x, weight = ndl.ones(1, 1, 2, 2), ndl.ones(1, 1, 2, 2)
    >>> ndl.nn.functional.conv_transpose2d(x, weight).numpy().tolist()
    [[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]
    """
    return convolve_transpose(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `conv3d`, plus bias (O,): x (N, C, P, P, P), weight (C, O/G, K, K, K) -> (N, O, D, H, W).

    Options and errors as in `conv_transpose2d`, with triples.
    """
    return convolve_transpose(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """What a kernel meets at each of its positions (im2col): x (N, C, *S) -> (N, C·K, P).

    `kernel_size` has one entry for each spatial axis, of any number; one integer stands for two axes. Rows run over
    channels and kernel positions, columns over output positions, row-major both. Raises ValueError where the kernel
    does not fit.

    >>> import needle as ndl
    >>> unfold(ndl.Tensor([[[1.0, 2.0, 3.0, 4.0]]]), (3,)).numpy().tolist()
    [[[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]]
    """
    kernel = _axes("unfold", "kernel_size", kernel_size)
    x, unbatched = _batched("unfold", len(kernel), tensor("unfold", x))
    columns = to_columns("unfold", x, kernel, dilation=dilation, padding=padding, stride=stride)
    return unbatched(columns)


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The transpose of `unfold`: each column added back in its place (col2im): x (N, C·K, P) -> (N, C, *S).

    `output_size` is S and `kernel_size` K, for any number of spatial axes; one integer stands for two axes. Raises
    ValueError where x has not the positions of that window.

    >>> import needle as ndl
    >>> fold(ndl.ones(1, 3, 2), (4,), (3,)).numpy().tolist()
    [[[1.0, 2.0, 2.0, 1.0]]]
    """
    size, kernel = _axes("fold", "output_size", output_size), _axes("fold", "kernel_size", kernel_size)
    check.same("fold", "length", len(size), len(kernel), ("output_size", "kernel_size"))
    x, unbatched = _batched("fold", 1, tensor("fold", x))
    y = from_columns("fold", x, size, kernel, dilation=dilation, padding=padding, stride=stride)
    return unbatched(y)


def same_padding(size, kernel_size, stride=1, dilation=1):
    """The padding with which a convolution of inputs of `size` (*S) gives ceil(S / stride) outputs, as pairs.

    This is what TensorFlow calls "same" for any stride; where the total is odd the larger half goes after. The other
    options are those of `conv2d`.

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


def _batched(op, rank, x):
    """x with a batch axis, and the function that takes the axis off again where x came without."""
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(f"{op}: x must have {rank + 2} axes, or {rank + 1} without a batch, but got shape {x.shape}")
    return with_batch(x, rank)


def _axes(op, name, value):
    """Sizes of at least 1 for any number of axes; one integer stands for two."""
    rank = max(1, len(value)) if isinstance(value, Sequence) and not isinstance(value, str) else 2
    return check.sizes(op, name, value, rank, least=1)
