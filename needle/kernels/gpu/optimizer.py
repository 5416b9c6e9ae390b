"""Rules of optimizers on GPUs: one launch for up to `MOST` parameters of float32, without copies and transfers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from needle import tuning
from needle.backend import Device, device_of
from needle.kernels.gpu.source import THREADS, Source, fits, generic, replaces
from needle.kernels.layout import Array, is_compact
from needle.kernels.update import Rule, Settings, Update, update_each
from needle.kernels.window import Size

MOST, MOST_SETTINGS = 50, 12  # as in the source
STATE = {  # kernel -> the state arrays that it may have, in its order
    "adadelta": ("square_avg", "acc_delta"),
    "adagrad": ("sum",),
    "adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "adamax": ("exp_avg", "exp_inf"),
    "average": (),
    "nadam": ("exp_avg", "exp_avg_sq"),
    "radam": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("square_avg", "momentum_buffer", "grad_avg"),
    "sgd": ("momentum_buffer",),
}
MOST_AXES = 4
LAYOUT = 1 + (MOST_AXES - 1) + MOST_AXES  # the numbers of a layout: axes, sizes, strides
PARAMETER = [("theta", "u8"), ("grad", "u8"), ("state", "u8", 3), ("count", "i4"), ("first_block", "i4")]
PARAMETERS = np.dtype(
    [
        ("each", np.dtype([*PARAMETER, ("layout", "i4", LAYOUT)], align=True), MOST),
        *((name, "i4") for name in ("count", "maximize", "nesterov", "piece")),
    ],
    align=True,
)
SETTINGS = np.dtype([("cell", "u8"), ("numbers", "f4", MOST_SETTINGS)], align=True)

source = Source("optimizer.cu")


@replaces(update_each)
def update_at_once(first: Array, updates: Sequence[Update], rule: Rule, settings: Settings) -> None:
    kernel, device = rule.kernel, device_of(first)
    if kernel not in STATE:
        generic(update_each)(first, updates, rule, settings)
        return
    served, others = [], []
    for update in updates:
        layout = _layout(update)
        if layout is None:
            others.append(update)
        else:
            served.append((update, layout))
    for start in range(0, len(served), MOST):
        arguments = _parameters(device, served[start : start + MOST], rule)
        blocks = sum(-(-update[0].size // tuning.CUDA_UPDATE_PIECE) for update, _ in served[start : start + MOST])
        source.launch(first, kernel, (blocks,), (THREADS,), arguments, _settings(device, settings))
    if others:
        generic(update_each)(first, others, rule, settings)


def _parameters(device: Device, served: Sequence[tuple[Update, Sequence[int]]], rule: Rule) -> Any:
    """The structure of that name."""
    struct = np.zeros(1, PARAMETERS)
    each, address = struct["each"][0, : len(served)], device.address
    each["theta"] = [address(update[0]) for update, _ in served]
    each["grad"] = [address(update[1]) for update, _ in served]
    names = STATE[rule.kernel or ""]
    for position, name in enumerate(rule.state, 2):
        each["state"][:, names.index(name)] = [address(update[position]) for update, _ in served]
    each["count"] = counts = [update[0].size for update, _ in served]
    each["first_block"] = [*accumulate((-(-count // tuning.CUDA_UPDATE_PIECE) for count in counts[:-1]), initial=0)]
    each["layout"] = [layout for _, layout in served]
    struct["count"], struct["piece"] = len(served), tuning.CUDA_UPDATE_PIECE
    for option in ("maximize", "nesterov"):
        struct[option] = rule.options.get(option, False)
    return struct[0]


def _settings(device: Device, settings: Settings) -> Any:
    """The structure of that name."""
    struct = np.zeros(1, SETTINGS)
    if device.recognizes(settings):
        struct["cell"] = device.address(settings)
    else:
        struct["numbers"][0, : len(settings)] = settings
    return struct[0]


def _layout(update: Update) -> Sequence[int] | None:
    """How the gradient of an update lies beside its other arrays, as in the source; None if no kernel serves them."""
    theta, grad, *state = update
    shape, strides = theta.shape, theta.strides
    if not fits(*update) or not all(is_in_order(layout_beside(shape, strides, array.strides)) for array in state):
        return None
    return layout_beside(shape, strides, grad.strides)


def is_in_order(layout: Sequence[int] | None) -> bool:
    """Whether a layout is that of arrays in the same memory order."""
    return layout is not None and layout[0] == 1 and layout[MOST_AXES] <= 1


@lru_cache(maxsize=4096)
def layout_beside(shape: Size, strides: Size, grad_strides: Size) -> Sequence[int] | None:
    """The layout of an array of float32 beside another of its shape; None if that has gaps, or they differ too much."""
    order = sorted((axis for axis, n in enumerate(shape) if n > 1), key=lambda axis: -strides[axis])
    if not is_compact(order, shape, strides, 4):
        return None
    sizes: list[int] = []
    steps: list[int] = []
    for axis in order:
        n, step = shape[axis], grad_strides[axis]
        if step % 4:
            return None
        if steps and steps[-1] == n * step // 4:  # adjacent here and there: one axis
            sizes[-1], steps[-1] = sizes[-1] * n, step // 4
        else:
            sizes.append(n)
            steps.append(step // 4)
    reach = sum((n - 1) * abs(step) for n, step in zip(sizes, steps, strict=True))
    if len(sizes) > MOST_AXES or reach >= 2**31:
        return None
    axes = max(len(sizes), 1)
    sizes, steps = sizes[1:], steps or [0]
    return (axes, *sizes, *(1,) * (MOST_AXES - 1 - len(sizes)), *steps, *(0,) * (MOST_AXES - len(steps)))
