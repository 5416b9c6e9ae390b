"""Normalisation by statistics of the batch, of groups of channels or of features, under torch's names.

float16 is computed in float32, as torch does it, for squares of halves overflow from 256 on.
"""

from __future__ import annotations

import math

from needle import check, ops
from needle.autograd import Tensor
from needle.ops.conv import check_floats
from needle.ops.operand import tensor


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Each channel of x (N, C, *S) to mean 0 and variance 1, then times weight (C,) plus bias (C,).

    In training by the statistics of the batch, and the running ones move: running = (1 - momentum) · running +
    momentum · batch, with the unbiased variance (divided by the count less 1). Otherwise by `running_mean` (C,) and
    `running_var` (C,). `momentum` may be a tensor (). Raises ValueError where shapes or options do not fit together, or
    where a channel has a single value in training; TypeError where dtypes do not fit.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2.
    """
    op = "batch_norm"
    x = _channels(op, x)
    check_parameters(op, x, x.shape[1:2], weight=weight, bias=bias)
    _check_running(op, x, running_mean, running_var, needed=not training, unless="training=True")
    if not isinstance(momentum, Tensor):
        momentum = check.number(op, "momentum", momentum, least=0, most=1)
    if training:
        eps = check.number(op, "eps", eps, above=0)
        if x.size <= x.shape[1]:
            raise ValueError(f"{op}: each channel must have more than 1 value in training, but got x {x.shape}")
    else:
        eps = check.number(op, "eps", eps, least=0)
    if not x.size:
        return x
    y = over_batch(_wide(x), running_mean, running_var, weight, bias, training, momentum, eps)
    return y.astype(x.dtype)


def over_batch(x, running_mean, running_var, weight, bias, training, momentum, eps, unbiased=True):
    """The arithmetic of `batch_norm` on arguments that were checked; without `unbiased`, `running_var` is biased."""
    channels = (1, -1) + (1,) * (x.ndim - 2)
    if not training:
        weight, bias = (None if value is None else ops.reshape(value, channels) for value in (weight, bias))
        scale = (ops.reshape(running_var.detach(), channels) + eps) ** -0.5
        y = (x - ops.reshape(running_mean.detach(), channels)) * (scale if weight is None else scale * weight)
        return y if bias is None else y + bias
    y, average, variance = ops.standardize(x, (0, *range(2, x.ndim)), weight, bias, eps, channels)
    if running_mean is not None:
        _track(running_mean, average, momentum)
        _track(running_var, variance, momentum, x.size // x.shape[1] if unbiased else None)
    return y


def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    """Each channel of each element of x (N, C, *S) to mean 0 and variance 1, then times weight (C,) plus bias (C,).

    The running statistics, where given, move towards those of x averaged over N, as in `batch_norm`; without
    `use_input_stats` they are what x is normalised by. Raises ValueError where shapes or options do not fit together,
    or where a channel has a single value; TypeError where dtypes do not fit.

    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016), equation 3.
    """
    op = "instance_norm"
    x = _channels(op, x)
    check_parameters(op, x, x.shape[1:2], weight=weight, bias=bias)
    _check_running(op, x, running_mean, running_var, needed=not use_input_stats, unless="use_input_stats=True")
    momentum = check.number(op, "momentum", momentum, least=0, most=1)
    eps = check.number(op, "eps", eps, least=0)
    count = math.prod(x.shape[2:])
    if use_input_stats and count == 1:
        raise ValueError(f"{op}: each channel must have more than 1 value, but got x {x.shape}")
    if not x.size:
        return x
    if not use_input_stats:
        y = over_batch(_wide(x), running_mean, running_var, weight, bias, False, momentum, eps)
    else:
        channels = (1, -1) + (1,) * (x.ndim - 2)
        y, average, variance = ops.standardize(_wide(x), tuple(range(2, x.ndim)), weight, bias, eps, channels)
        if running_mean is not None:
            _track(running_mean, ops.mean(average, 0), momentum)
            _track(running_var, ops.mean(variance, 0), momentum, count)
    return y.astype(x.dtype)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """Each of `num_groups` groups of channels of each element of x (N, C, *S) to mean 0 and variance 1.

    Then times weight (C,) plus bias (C,). Raises ValueError where the groups do not divide the channels, where shapes
    do not fit together or x holds one value for each group; TypeError where dtypes do not fit.

    Wu and He, "Group Normalization" (2018), equations 1 to 4.
    """
    op = "group_norm"
    x = _channels(op, x)
    groups = check.integer(op, "num_groups", num_groups, least=1)
    if x.shape[1] % groups:
        raise ValueError(f"{op}: num_groups must divide the {x.shape[1]} channels of x, but got {groups}")
    check_parameters(op, x, x.shape[1:2], weight=weight, bias=bias)
    eps = check.number(op, "eps", eps, least=0)
    if x.size == groups:
        raise ValueError(f"{op}: x must have more than 1 value per group, but got {x.shape} in {groups} groups")
    if not x.size:
        return x
    grouped = ops.reshape(_wide(x), (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    channels = (1, *grouped.shape[1:3]) + (1,) * (x.ndim - 2)
    y, _, _ = ops.standardize(grouped, tuple(range(2, grouped.ndim)), weight, bias, eps, channels)
    return ops.reshape(y, x.shape).astype(x.dtype)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """The last axes of x (…, *normalized_shape) to mean 0 and variance 1, then times weight plus bias of that shape.

    `normalized_shape` may be one integer. Raises ValueError where shapes do not fit together, TypeError where dtypes
    do not.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4.
    """
    op = "layer_norm"
    x = tensor(op, x)
    shape = features(op, normalized_shape)
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"{op}: x must end in the axes {shape}, but got shape {x.shape}")
    check_parameters(op, x, shape, weight=weight, bias=bias)
    eps = check.number(op, "eps", eps, least=0)
    if not x.size:
        return x
    y, _, _ = ops.standardize(_wide(x), tuple(range(x.ndim - len(shape), x.ndim)), weight, bias, eps)
    return y.astype(x.dtype)


def normalize(x, p=2.0, dim=1, eps=1e-12):
    """x / max(‖x‖, eps), with the p-norm along the axis or axes `dim`: x of any shape -> the same shape.

    Squares neither overflow nor vanish, and the derivative of the norm at 0 is 0. Raises ValueError where x has no
    such axis or p is not positive, TypeError where x is of no floating dtype.
    """
    x = tensor("normalize", x)
    check_floats("normalize", x=x)
    p = check.number("normalize", "p", p, above=0)
    axes = check.axes("normalize", dim, x.ndim, "dim")
    eps = check.number("normalize", "eps", eps, least=0)
    if not x.size:
        return x
    whole = _wide(x)
    return (whole / ops.clip(length(whole, p, axes), eps)).astype(x.dtype)


def length(x, p, axes):
    """The p-norm of x over `axes`, which stay with size 1.

    The largest size is taken out, so that no power overflows or vanishes; it is a constant for the graph, for the norm
    does not depend on it.
    """
    if p == 1:
        return ops.summation(ops.abs(x), axes, keepdims=True)
    if p == math.inf:
        return ops.max(ops.abs(x), axes, keepdims=True)
    top = ops.max(ops.abs(x.detach()), axes, keepdims=True)
    null = ops.equal(top, 0).astype(x.dtype)
    parts = x / (top + null)
    if p == 2:
        return ops.sqrt(ops.summation(parts * parts, axes, keepdims=True) + null) * top
    some = ops.not_equal(x, 0)
    powers = ops.where(some, ops.abs(parts), 1) ** p * some
    return (ops.summation(powers, axes, keepdims=True) + null) ** (1 / p) * top


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def _track(running, batch, momentum, count=None):
    """Move a running statistic towards that of a batch, in its own dtype; of `count` values a variance is unbiased."""
    momentum, array = momentum.array if isinstance(momentum, Tensor) else momentum, running.array
    share = momentum if count is None else momentum * (count / (count - 1))
    step = batch.array.reshape(array.shape).astype(array.dtype) * share
    running.data = Tensor.make_const(array * (1 - momentum) + step)


def _wide(x):
    """x in float32 where it is of float16."""
    return x.astype("float32") if x.dtype == "float16" else x


# ---- rules -----------------------------------------------------------------------------------------------------------


def features(op, normalized_shape):
    """`normalized_shape` as a tuple: one integer or several, each at least 1."""
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not given:
        raise ValueError(f"{op}: normalized_shape must have at least 1 axis, but got {normalized_shape}")
    return tuple(check.integer(op, "normalized_shape", n, least=1) for n in given)


def check_parameters(op, x, shape, **parameters):
    """Refuse parameters (None: left out) of another shape or dtype; those of float16 inputs may be of float32."""
    check_floats(op, x=x)
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        parameter = tensor(op, parameter)
        if parameter.shape != shape:
            raise ValueError(f"{op}: {name} must have shape {shape} for x {x.shape}, but got {parameter.shape}")
        if not (x.dtype == "float16" and parameter.dtype == "float32"):
            check_floats(op, **{"x": x, name: parameter})


def _check_running(op, x, running_mean, running_var, *, needed, unless):
    """Refuse one running statistic without the other, none where one is needed, and wrong shapes or dtypes."""
    missing = [running_mean is None, running_var is None]
    if any(missing) and (needed or not all(missing)):
        names = [name for name, none in zip(("running_mean", "running_var"), missing, strict=True) if none]
        raise ValueError(
            f"{op}: running_mean and running_var must both be given, or with {unless} neither, but "
            f"{' and '.join(names)} is None"
        )
    for name, running in ("running_mean", running_mean), ("running_var", running_var):
        if running is not None:
            check.instance(op, name, running, Tensor)
    check_parameters(op, x, x.shape[1:2], running_mean=running_mean, running_var=running_var)


def _channels(op, x):
    x = tensor(op, x)
    if x.ndim < 2:
        raise ValueError(f"{op}: x must have at least 2 axes, (N, C, *S), but got shape {x.shape}")
    return x
