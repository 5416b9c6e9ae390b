"""Activations, under torch's names, with torch's derivatives at their kinks."""

from __future__ import annotations

import warnings

from needle import check, ops
from needle.ops import relu, sigmoid
from needle.ops.conv import check_floats
from needle.ops.operand import tensor


def relu6(x):
    """min(max(x, 0), 6); its derivative at 0 and at 6 is 0."""
    return ops.hardtanh(_floats("relu6", x), 0.0, 6.0)


def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x limited to [min_val, max_val]; the derivative at both ends is 0.

    Raises ValueError where `min_val` exceeds `max_val`.
    """
    x = _floats("hardtanh", x)
    low, high = check.number("hardtanh", "min_val", min_val), check.number("hardtanh", "max_val", max_val)
    if low > high:
        raise ValueError(f"hardtanh: min_val must not exceed max_val, but got {min_val} and {max_val}")
    return ops.hardtanh(x, low, high)


def leaky_relu(x, negative_slope=0.01):
    """x where it is positive, else negative_slope · x; its derivative at 0 is `negative_slope`."""
    x = _floats("leaky_relu", x)
    slope = check.number("leaky_relu", "negative_slope", negative_slope)
    return x * (ops.greater(x, 0).astype(x.dtype) + ops.less_equal(x, 0).astype(x.dtype) * slope)


def elu(x, alpha=1.0):
    """x where it is positive, else alpha · (e ** x - 1); its derivative at 0 is `alpha`.

    Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units" (2016),
    equation 15.
    """
    x = _floats("elu", x)
    alpha = check.number("elu", "alpha", alpha)
    return relu(x) + ops.expm1(ops.clip(x, high=0)) * alpha


def silu(x):
    """x · sigmoid(x), also called swish."""
    x = _floats("silu", x)
    return x * sigmoid(x)


def softplus(x, beta=1.0, threshold=20.0):
    """log(1 + e ** (beta · x)) / beta, and x itself where beta · x exceeds `threshold`."""
    x = _floats("softplus", x)
    beta = check.number("softplus", "beta", beta, above=0)
    threshold = check.number("softplus", "threshold", threshold)
    scaled = x if beta == 1 else x * beta
    smooth = ops.softplus(scaled)
    return ops.where(ops.greater(scaled, threshold), x, smooth if beta == 1 else smooth / beta)


def softmax(x, dim=None, dtype=None):
    """e ** x / sum(e ** x) along the axis `dim`, without overflow.

    `dtype` is that of the result, and x is cast to it first. Without `dim` the axis is 0 for inputs of 1 or 3 axes and
    1 for others, with a warning, as torch has it. Raises ValueError where x has no such axis.
    """
    return _along(ops.softmax, "softmax", x, dim, dtype)


def log_softmax(x, dim=None, dtype=None):
    """x - log(sum(e ** x)) along the axis `dim`, without overflow; options and errors as in `softmax`."""
    return _along(ops.logsoftmax, "log_softmax", x, dim, dtype)


def _along(function, op, x, dim, dtype):
    """`function` of x, cast to `dtype`, along the axis that `dim` names or, without it, torch would choose."""
    x = tensor(op, x)
    if not x.ndim:
        raise ValueError(f"{op}: x must have at least 1 axis, but got shape ()")
    if dim is None:
        dim = 0 if x.ndim in (1, 3) else 1
        warnings.warn(f"{op}: dim is not given, and axis {dim} of {x.ndim} was chosen", stacklevel=3)
    axis = check.axis(op, dim, x.ndim, "dim")
    x = _floats(op, x if dtype is None else x.astype(dtype))
    return function(x, axis) if x.size else x


def _floats(op, x):
    """A tensor of a floating dtype."""
    x = tensor(op, x)
    check_floats(op, x=x)
    return x
