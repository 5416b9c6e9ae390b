"""Normalization by statistics of the batch, of channels, of groups of channels or of features, under torch's names.

float16 is computed in float32, as in torch: float16 overflows at 256².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import asked, compute_dtype, is_writable
from needle.backend.communicator import current_communicator
from needle.grad_mode import mode
from needle.kernels import means
from needle.ops.across_ranks import batch_means
from needle.ops.arithmetic import ADD, DIVIDE, MULTIPLY, NEGATE, AddScalar, PowerScalar, as_dtype
from needle.ops.elementwise import RELU, Clip
from needle.ops.norm import Tracking, standardized
from needle.ops.norm_across_ranks import batch_standardizer
from needle.ops.operand import tensor
from needle.ops.shape import Reshape
from needle.ops.statistics import vector_norm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "normalize"]


def batch_norm(
    x: TensorLike,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of x (N, C, *S) to mean 0 and variance 1, then multiply by weight (C,) and add bias (C,).

    In training, uses the statistics of the batch and updates the running ones in place: running = (1 - momentum) ·
    running + momentum · batch, with the unbiased variance (divided by the count less 1). In evaluation, uses
    `running_mean` (C,) and `running_var` (C,), which may be None in training only. `momentum` may be a tensor ().
    Parameters and statistics share the dtype of x; with a float16 x they may be float32.

    An empty batch has no statistics and leaves the running ones as they are.

    Raises `ValueError` if shapes or options do not fit together, or if a channel has a single value in training;
    `TypeError` if dtypes or devices do not fit.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2.
    """
    return checked_batch_norm("batch_norm", x, running_mean, running_var, weight, bias, training, momentum, eps)


def checked_batch_norm(
    op: str,
    x: TensorLike,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: TensorLike | None,
    bias: TensorLike | None,
    training: bool,
    momentum: float | Tensor,
    eps: float,
    unbiased: bool = True,
    rectified: bool = False,
    counter: Tensor | None = None,
) -> Tensor:
    """`batch_norm` under the name `op`. Without `unbiased`, `running_var` tracks the biased variance.

    With `rectified`, relu of the result; in training in the same pass. `counter` (), int64, counts the batch.
    """
    x = _with_channels(op, x)
    _check_running(op, running_mean, running_var, required=not training, option="training=True")
    running = {"running_mean": running_mean, "running_var": running_var}
    weight, bias, *_ = _parameters(op, x, x.shape[1:2], weight=weight, bias=bias, **running)
    if not isinstance(momentum, Tensor):
        momentum = check.number(op, "momentum", momentum, least=0, most=1)
    if training:
        eps = check.number(op, "eps", eps, above=0)
        if x.shape[0] * math.prod(x.shape[2:]) == 1 and current_communicator().part is None:
            raise ValueError(f"{op}: each channel must have more than 1 value in training, but got x {x.shape}")
    else:
        eps = check.number(op, "eps", eps, least=0)
    return over_batch(
        x, running_mean, running_var, weight, bias, training, momentum, eps, unbiased, rectified, counter
    )


def over_batch(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | Tensor,
    eps: float,
    unbiased: bool = True,
    rectified: bool = False,
    counter: Tensor | None = None,
) -> Tensor:
    """`batch_norm` of checked arguments, and relu behind it if `rectified`."""
    channels = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
    wide = compute_dtype(x.dtype)

    def by_channel(value: Tensor) -> Tensor:
        return as_dtype(Reshape(channels)(value), wide)

    if training and (0 not in x.shape or (x.shape[1] and current_communicator().part is not None)):
        axes, op = (0, *range(2, len(x.shape))), batch_standardizer()
        if running_mean is None or running_var is None:
            return standardized(x, axes, weight, bias, eps, channels, rectified, op)[0]
        is_written = not mode.outlining and is_writable(running_mean.array) and is_writable(running_var.array)
        if is_written and not isinstance(momentum, Tensor):
            op = partial(op, tracking=Tracking(momentum, unbiased, counter is not None))
            running = (running_mean, running_var) if counter is None else (running_mean, running_var, counter)
            return _tracked(running, standardized, x, axes, weight, bias, eps, channels, rectified, op)
        y, result = standardized(x, axes, weight, bias, eps, channels, rectified, op)
        _, batch_mean, batch_var, *counts = result.array
        share, count = momentum.array if isinstance(momentum, Tensor) else momentum, x.size // x.shape[1]
        if counts:  # of all ranks
            count = counts[0].reshape(()) if y.device.is_async else asked(counts[0]).item()
            share = share * (count > 0)
        _track(running_mean, batch_mean, share)
        _track(running_var, batch_var, share, count if unbiased else None)
        if counter is not None:
            add_one(counter)
        return y
    if counter is not None:
        add_one(counter)
    if 0 in x.shape:
        y = as_dtype(x, wide) if weight is None else MULTIPLY(as_dtype(x, wide), by_channel(weight))
    else:
        assert running_mean is not None
        assert running_var is not None
        scale = PowerScalar(-0.5)(AddScalar(eps)(by_channel(running_var.detach())))
        if weight is not None:
            scale = MULTIPLY(scale, by_channel(weight))
        y = MULTIPLY(ADD(as_dtype(x, wide), NEGATE(by_channel(running_mean.detach()))), scale)
    y = as_dtype(y if bias is None else ADD(y, by_channel(bias)), x.dtype)
    return RELU(y) if rectified else y


def instance_norm(
    x: TensorLike,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of each sample of x (N, C, *S) to mean 0 and variance 1, then scale and shift.

    Weight and bias are (C,). Running statistics (C,), if passed, are updated in place as in `batch_norm`, by the
    statistics of x averaged over N. Without `use_input_stats`, x is normalized by them and they stay unchanged.

    Raises `ValueError` if shapes or options do not fit together, or if a channel has a single value; `TypeError` if
    dtypes or devices do not fit.

    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016), equation 3.
    """
    op = "instance_norm"
    x = _with_channels(op, x)
    _check_running(op, running_mean, running_var, required=not use_input_stats, option="use_input_stats=True")
    running = {"running_mean": running_mean, "running_var": running_var}
    weight, bias, *_ = _parameters(op, x, x.shape[1:2], weight=weight, bias=bias, **running)
    momentum = check.number(op, "momentum", momentum, least=0, most=1)
    eps = check.number(op, "eps", eps, least=0)
    count = math.prod(x.shape[2:])
    if use_input_stats and count == 1:
        raise ValueError(f"{op}: each channel must have more than 1 value, but got x {x.shape}")
    if not x.size:
        return x
    if not use_input_stats:
        return over_batch(x, running_mean, running_var, weight, bias, False, momentum, eps)
    channels = (1, x.shape[1], *(1,) * (x.ndim - 2))
    y, result = standardized(x, tuple(range(2, x.ndim)), weight, bias, eps, channels)
    if running_mean is not None and running_var is not None:
        _, sample_means, sample_vars = result.array
        mean, var = batch_means(means(sample_means, (0,)), means(sample_vars, (0,)))
        _track(running_mean, mean, momentum)
        _track(running_var, var, momentum, count)
    return y


def group_norm(
    x: TensorLike,
    num_groups: int,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each group of channels of each sample of x (N, C, *S) to mean 0 and variance 1, then scale and shift.

    There are `num_groups` groups of C / num_groups channels. Weight and bias are (C,).

    Raises `ValueError` if the groups do not divide the channels, if shapes do not fit together or if x has a single
    value per group; `TypeError` if dtypes or devices do not fit.

    Wu and He, "Group Normalization" (2018), equations 1 to 4.
    """
    op = "group_norm"
    x = _with_channels(op, x)
    groups = check.integer(op, "num_groups", num_groups, least=1)
    if x.shape[1] % groups:
        raise ValueError(f"{op}: num_groups must divide the {x.shape[1]} channels of x, but got {groups}")
    weight, bias = _parameters(op, x, x.shape[1:2], weight=weight, bias=bias)
    eps = check.number(op, "eps", eps, least=0)
    if x.size == groups:
        raise ValueError(f"{op}: x must have more than 1 value per group, but got {x.shape} in {groups} groups")
    if not x.size:
        return x
    grouped = Reshape((x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))(x)  # (N, G, C/G, *S)
    channels = (1, *grouped.shape[1:3]) + (1,) * (x.ndim - 2)
    y, _ = standardized(grouped, tuple(range(2, grouped.ndim)), weight, bias, eps, channels)
    return Reshape(x.shape)(y)


def layer_norm(
    x: TensorLike,
    normalized_shape: int | Sequence[int],
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize the last axes of x (…, *normalized_shape) to mean 0 and variance 1, then scale and shift.

    Weight and bias have the shape `normalized_shape`, which may be one integer.

    Raises `ValueError` if shapes do not fit together, `TypeError` if dtypes or devices do not.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4.
    """
    op = "layer_norm"
    x = tensor(op, x)
    shape = last_axes(op, x, normalized_shape)
    check.floats(op, x=x)
    weight, bias = _parameters(op, x, shape, weight=weight, bias=bias)
    eps = check.number(op, "eps", eps, least=0)
    if not x.size:
        return x
    y, _ = standardized(x, tuple(range(x.ndim - len(shape), x.ndim)), weight, bias, eps)
    return y


def normalize(x: TensorLike, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖, eps), with the p-norm along the axis or axes `dim`: x of any shape -> the same shape.

    `p` may be infinite. Powers neither overflow nor vanish; the derivative of the norm at 0 is 0.

    Raises `ValueError` if x has no such axis or p is not positive, `TypeError` unless the dtype of x is floating.
    """
    x = tensor("normalize", x)
    check.floats("normalize", x=x)
    p = check.number("normalize", "p", p, above=0)
    axes = check.reduced_axes("normalize", dim, x.ndim, name="dim")
    eps = check.number("normalize", "eps", eps, least=0)
    if not x.size:
        return x
    wide = as_dtype(x, compute_dtype(x.dtype))
    return as_dtype(DIVIDE(wide, Clip(eps, None)(vector_norm(wide, p, axes))), x.dtype)


def _track(running: Tensor, batch: Any, share: Any, count: Any = None) -> None:
    """Move a running statistic towards a batch's raw array. `count` makes a variance over that many values unbiased.

    A write into its memory, not a node of a graph: raw arrays take a third of the time that ops would.
    """
    array = running.array
    scale = share if count is None else share * (count / (count - (count != 1)))
    moved = array.astype(batch.dtype, copy=False) * (1 - share) + batch.reshape(array.shape) * scale
    if is_writable(array):
        running.bump_version()
        array[...] = moved
    else:
        running.replace_array(moved.astype(array.dtype, copy=False))


def _tracked(running: Sequence[Tensor], compute: Callable[..., tuple[Tensor, Any]], *arguments: Any) -> Tensor:
    """The y of `compute(*arguments, constants)`, which writes into the arrays of `running`, passed as constants."""
    y, _ = compute(*arguments, [value.detach() if value.requires_grad else value for value in running])
    for value in running:
        value.bump_version()
    return y


def add_one(counter: Tensor) -> None:
    """Count one more batch in place."""
    counter.array[...] += 1
    counter.bump_version()


# ---- argument rules --------------------------------------------------------------------------------------------------


def last_axes(op: str, x: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """`normalized_shape` as a tuple. Raises ValueError unless x ends in these axes."""
    shape = as_normalized_shape(op, normalized_shape)
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"{op}: x must end in the axes {shape}, but got shape {x.shape}")
    return shape


def as_normalized_shape(op: str, value: int | Sequence[int]) -> tuple[int, ...]:
    """`normalized_shape` as a tuple: one integer or several, each at least 1."""
    shape = value if isinstance(value, (tuple, list)) else (value,)
    if not shape:
        raise ValueError(f"{op}: normalized_shape must have at least 1 axis, but got {value}")
    return tuple(check.integer(op, "normalized_shape", n, least=1) for n in shape)


def _with_channels(op: str, x: TensorLike) -> Tensor:
    x = tensor(op, x)
    if len(x.shape) < 2:
        raise ValueError(f"{op}: x must have at least 2 axes, (N, C, *S), but got shape {x.shape}")
    if x.spec.dtype.kind != "f":
        check.floats(op, x=x)
    return x


def _parameters(
    op: str, x: Tensor, shape: tuple[int, ...], **parameters: TensorLike | None
) -> tuple[Tensor | None, ...]:
    """The parameters as tensors of `shape` (or None) in the dtype of x; with a float16 x they may be float32."""
    result: list[Tensor | None] = []
    dtype, device = x.dtype, x.device
    for name, value in parameters.items():
        parameter = value if value is None or isinstance(value, Tensor) else tensor(op, value)
        if parameter is not None:
            if parameter.shape != shape:
                raise ValueError(f"{op}: {name} must have shape {shape} for x {x.shape}, but got {parameter.shape}")
            fits = parameter.dtype == dtype and parameter.device is device  # the usual case, in the shortest time
            if not fits and not (dtype == "float16" and parameter.dtype == "float32"):
                check.floats(op, **{"x": x, name: parameter})
        result.append(parameter)
    return tuple(result)


def _check_running(
    op: str, running_mean: Tensor | None, running_var: Tensor | None, *, required: bool, option: str
) -> None:
    """Refuse one running statistic without the other, none if `required`, and what is no tensor."""
    if isinstance(running_mean, Tensor) and isinstance(running_var, Tensor):
        return
    running = {"running_mean": running_mean, "running_var": running_var}
    missing = [name for name, value in running.items() if value is None]
    if missing and (required or len(missing) < 2):
        raise ValueError(
            f"{op}: running_mean and running_var must both be given, or with {option} neither, but "
            f"{' and '.join(missing)} is None"
        )
    for name, value in running.items():
        if value is not None:
            check.instance(op, name, value, Tensor)
