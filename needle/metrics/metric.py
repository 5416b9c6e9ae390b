"""What all metrics share: totals over batches, which stay on the device, and their state."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, HostArray, check_array_range, cpu, device_of, to_host
from needle.graph import check_one_device
from needle.kernels import class_axis
from needle.ops.operand import tensor

__all__ = ["Metric"]

Array: TypeAlias = Any


class Metric:
    """A figure of a model over many batches: `update` adds a batch, `compute` returns the figure so far.

    The base of all metrics. They keep `size` totals as float64 on the device of the last batch: memory does not grow,
    and `update` never waits for the device. `compute` and `state_dict` do.
    """

    def __init__(self, size: int) -> None:
        self._totals: Array = np.zeros(size)

    def update(self, outputs: TensorLike, targets: TensorLike) -> None:
        """Add a batch."""
        raise NotImplementedError(f"{type(self).__name__}: update is not defined")

    def compute(self) -> Any:
        """The figure over all batches since the last `reset`."""
        raise NotImplementedError(f"{type(self).__name__}: compute is not defined")

    def reset(self) -> None:
        """Forget all batches."""
        self._totals = np.zeros(self._totals.shape)

    def state_dict(self) -> dict[str, HostArray]:
        """The totals as a NumPy array. A metric that loads it goes on with the same numbers, bit for bit."""
        return {"totals": to_host(self._totals).copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises `ValueError` or `TypeError`, and changes nothing, if it is not the state of such a metric.
        """
        name, shape = type(self).__name__, self._totals.shape
        if not isinstance(state, dict) or [*state] != ["totals"]:
            raise ValueError(f"{name}: state must be a dict with the key 'totals', but got {state!r}")
        totals = tensor(name, state["totals"])
        if totals.shape != shape or totals.dtype != "float64":
            raise ValueError(
                f"{name}: totals must be of shape {shape} and dtype float64, but got {totals.shape} and {totals.dtype}"
            )
        self._totals = to_host(totals.array).copy()

    def __repr__(self) -> str:
        options = (f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(options)})"

    def _totals_on(self, device: Device) -> Array:
        """The totals, moved to a device."""
        if device_of(self._totals) != device:
            self._totals = device.array(to_host(self._totals))
        return self._totals

    def _add(self, total: Array, count: Array | int) -> None:
        """Add to the two totals of a mean."""
        device = device_of(total)
        totals = self._totals_on(device)
        if device.is_async:  # one kernel for each, where an index would need two
            for place, value in ((totals[:1], total), (totals[1:], count)):
                place += value
        else:
            totals[0] += total
            totals[1] += count

    def _mean(self) -> float:
        """The first total divided by the second; NaN if that is 0."""
        total, count = map(float, to_host(self._totals))
        return total / count if count else float("nan")


def on_one_device(op: str, outputs: TensorLike, targets: TensorLike) -> tuple[Tensor, Tensor]:
    """Both arguments as tensors; an argument that is none goes to the device of the other."""
    outputs = tensor(op, outputs, targets if isinstance(targets, Tensor) else None)
    targets = tensor(op, targets, outputs)
    check_one_device(op, (outputs, targets))
    return outputs, targets


def classes_of(op: str, outputs: TensorLike, targets: TensorLike) -> tuple[Tensor, Tensor]:
    """Outputs and class indices (N, *S), checked. Outputs are logits (N, C, *S), floats, or class indices (N, *S).

    Of targets that are probabilities, floats of the shape of the logits, the most probable class counts.
    """
    outputs, targets = on_one_device(op, outputs, targets)
    shape, kind = outputs.shape, outputs.dtype.kind
    if targets.dtype.kind not in "iuf":
        raise TypeError(f"{op}: targets must be class indices, but got dtype {targets.dtype}")
    if kind == "f":
        axis = class_axis(outputs)
        if not shape or not shape[axis]:
            raise ValueError(f"{op}: outputs must have an axis of at least 1 class, but got shape {shape}")
        if targets.shape == shape and targets.dtype.kind == "f":
            targets = Tensor.make_const(targets.array.argmax(axis))
        shape = shape[:axis] + shape[axis + 1 :]
    elif kind not in "iu":
        raise TypeError(f"{op}: outputs must be logits or class indices, but got dtype {outputs.dtype}")
    if targets.shape != shape:
        raise ValueError(
            f"{op}: targets must hold class indices {shape} for outputs {outputs.shape}, but got {targets.shape}"
        )
    return outputs, targets


def optional_index(op: str, ignore_index: int | None) -> int | None:
    """An integer or None."""
    return None if ignore_index is None else check.integer(op, "ignore_index", ignore_index)


def is_class(indices: Array, n: int) -> Array:
    """Whether each int64 index lies in [0, n)."""
    return indices.view("uint64") < n  # negative indices become large ones


def check_classes(op: str, name: str, indices: Array, n: int, ignored: int | None = None) -> None:
    """Refuse indices outside [0, n) other than `ignored`, on the CPU only: elsewhere reading them would wait."""
    if device_of(indices) == cpu():
        kept = indices if ignored is None else indices[indices != ignored]
        if not is_class(kept, n).all():  # in half the time of the smallest and the largest
            check_array_range(op, name, kept, 0, n - 1)


def kept_of(targets: Array, ignore_index: int | None) -> Array | None:
    """The mask of the targets that count; None: all do."""
    return None if ignore_index is None else targets != ignore_index
