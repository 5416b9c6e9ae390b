"""Functions of neural networks under torch's names, composed of ops."""

from __future__ import annotations

from needle import check, init
from needle.backend_ndarray import cpu, xp
from needle.ops import getitem, logsoftmax, mean, reshape
from needle.ops.conv import check_floats, convolve
from needle.ops.operand import tensor
from needle.ops.pool import avg_pool, max_pool

# ---- convolution -----------------------------------------------------------------------------------------------------


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


# ---- pooling ---------------------------------------------------------------------------------------------------------


def max_pool1d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, L) -> (N, C, P); the stride is the kernel size by default."""
    return max_pool("max_pool1d", x, 1, kernel_size, stride, padding)


def max_pool2d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, H, W) -> (N, C, P, P); the stride is the kernel size by default."""
    return max_pool("max_pool2d", x, 2, kernel_size, stride, padding)


def max_pool3d(x, kernel_size, stride=None, padding=0):
    """The largest element of each window: (N, C, D, H, W) -> (N, C, P, P, P); default stride: the kernel size."""
    return max_pool("max_pool3d", x, 3, kernel_size, stride, padding)


def avg_pool1d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, L) -> (N, C, P)."""
    return avg_pool("avg_pool1d", x, 1, kernel_size, stride, padding)


def avg_pool2d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, H, W) -> (N, C, P, P)."""
    return avg_pool("avg_pool2d", x, 2, kernel_size, stride, padding)


def avg_pool3d(x, kernel_size, stride=None, padding=0):
    """The mean of each window, padding counted as zeros: (N, C, D, H, W) -> (N, C, P, P, P)."""
    return avg_pool("avg_pool3d", x, 3, kernel_size, stride, padding)


# ---- the rest of a small network -------------------------------------------------------------------------------------


def dropout(x, p=0.5, training=True):
    """Each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself.

    Draws one `np.random.rand(*x.shape)` and keeps where it is at most 1 - p.
    """
    p = check.number("dropout", "p", p, least=0, most=1)
    if not training or p == 0:
        return x
    keep = init.randb(*x.shape, p=1 - p, device=x.device, dtype=x.dtype)
    return x * keep / (1 - p) if p < 1 else x * 0


def cross_entropy(x, target):
    """The mean of logsumexp(x) - x[target] over the batch: logits (N, C), integers (N,) of any dtype -> ().

    Raises ValueError where shapes disagree or, on the CPU, where a target is not in [0, C).
    """
    x, target = tensor("cross_entropy", x), tensor("cross_entropy", target)
    if x.ndim != 2 or target.shape != x.shape[:1]:
        raise ValueError(f"cross_entropy: x (N, C) and target (N,) are needed, but got {x.shape} and {target.shape}")
    if not x.shape[0]:
        raise ValueError("cross_entropy: the batch must not be empty, but got x of shape " + str(x.shape))
    classes = target.array.astype("int64")
    if target.device == cpu() and not (classes.min() >= 0 and classes.max() < x.shape[1]):
        raise ValueError(
            f"cross_entropy: targets must lie in [0, {x.shape[1] - 1}], but got {classes.min()} to {classes.max()}"
        )
    rows = xp(classes).arange(x.shape[0])
    return -mean(getitem(logsoftmax(x), (x.make_const(rows), x.make_const(classes))))
