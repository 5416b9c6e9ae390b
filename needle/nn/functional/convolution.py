"""Convolution over one, two or three axes, under torch's names."""

from __future__ import annotations

from needle.ops import reshape
from needle.ops.conv import check_floats, convolve
from needle.ops.operand import tensor


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, L) with weight (O, C/G, K), plus bias (O,): (N, O, P).

    P = floor((L + 2·padding - dilation·(K - 1) - 1) / stride) + 1. Raises ValueError where shapes or options do not fit
    together, TypeError where dtypes do not.
    """
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, H, W) with weight (O, C/G, K, K), plus bias (O,): (N, O, P, P).

    Each option is one integer or a pair. P = floor((H + 2·padding - dilation·(K - 1) - 1) / stride) + 1 for each axis.
    Raises ValueError where shapes or options do not fit together, TypeError where dtypes do not.

    >>> import needle as ndl
    >>> x, weight = ndl.ones(1, 1, 3, 3), ndl.ones(1, 1, 2, 2)
    >>> ndl.conv2d(x, weight).numpy().tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, D, H, W) with weight (O, C/G, K, K, K), plus bias (O,): (N, O, P, P, P).

    Options and errors as in `conv2d`, with triples.
    """
    return _conv("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _conv(op, rank, x, weight, bias, stride, padding, dilation, groups):
    x, weight = tensor(op, x), tensor(op, weight)
    if x.ndim != rank + 2:
        raise ValueError(f"{op}: x must have {rank + 2} axes, (N, C, *S), but got shape {x.shape}")
    if bias is not None:
        bias = tensor(op, bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"{op}: bias must have the shape {weight.shape[:1]} of out-channels, but got {bias.shape}")
        check_floats(op, x=x, bias=bias)
    y = convolve(op, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return y if bias is None else y + reshape(bias, (1, -1) + (1,) * rank)
