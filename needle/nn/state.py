"""The state of modules: loading values into tensors, and moving tensors to another device or dtype."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, device_of, is_writable, real_dtype, root_of, xp
from needle.backend_ndarray import NDArray
from needle.graph import Array

__all__ = ["MismatchedKeys", "destination", "load", "move"]


class MismatchedKeys(NamedTuple):
    """The names of a module's state that a loaded state lacks, and those that only the loaded one has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load(
    own: Mapping[str, Tensor],
    state: Mapping[str, Any],
    strict: bool,
    optional: Collection[str],
    layouts: Mapping[str, tuple[int, ...]],
) -> MismatchedKeys:
    """Write the values of `state` into the tensors of `own`; see `Module.load_state_dict`.

    `optional` names may be missing; `layouts` tells for names in which order they have torch's axes.
    """
    values = {name: state[name] for name in state}  # once: a .npz reads its file for each
    known = {*values, *optional}
    missing = [name for name in own if name not in known]
    unexpected = [name for name in values if name not in own]
    problems = []
    if strict:
        problems += [f"missing {name} {own[name].shape}" for name in missing]
        problems += [f"unexpected {name} {_shape(name, values[name])}" for name in unexpected]
    values = {name: values[name] for name in own if name in values}
    for name, value in values.items():
        if _shape(name, value) != own[name].shape:
            problems.append(f"{name} has shape {own[name].shape}, not {_shape(name, value)}")
        elif name in layouts and type(value).__module__.partition(".")[0] == "torch":
            how = "T" if layouts[name] == (1, 0) else f"permute{layouts[name]}"
            problems.append(f"{name} has torch's layout: pass its {how}.numpy()")
    if problems:
        raise ValueError(f"load_state_dict: names and shapes must agree, but got {'; '.join(problems)}")
    mine = {id(root_of(tensor.array)) for tensor in own.values()}
    arrays = {name: _as_array(name, value, own[name]) for name, value in values.items()}
    for name, array in arrays.items():
        if id(root_of(array)) in mine:  # it would change while others are written
            arrays[name] = array.copy()
    for name, array in arrays.items():
        _write(own[name], array)
    return MismatchedKeys(missing, unexpected)


def _shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of a value in a state; TypeError if it is no array of numbers."""
    try:
        return tuple(value.shape if hasattr(value, "shape") else Tensor(value).shape)
    except (TypeError, ValueError) as error:
        got = type(value).__name__
        raise TypeError(f"load_state_dict: {name} must be an array of numbers, but got {got}") from error


def _as_array(name: str, value: Any, target: Tensor) -> Array:
    """A value as a raw array of the device and dtype of its target; copied only if it has another."""
    op, data = f"load_state_dict: {name}", value.array if isinstance(value, (Tensor, NDArray)) else value
    array = target.device.real_array(op, data, target.dtype, copy=False)
    if array.dtype.kind != "f" and (array != target.device.real_array(op, data, copy=False)).any().item():
        raise ValueError(f"load_state_dict: {name} must hold values of {array.dtype}, but got some that it cannot hold")
    return array


def _write(tensor: Tensor, array: Array) -> None:
    """Copy an array into the memory of a tensor; where that is read-only or repeated, into memory of the same order."""
    if not is_writable(tensor.array):
        tensor.replace_array(xp(array).empty_like(tensor.array))
    tensor.bump_version()
    tensor.array[...] = array


def destination(device: Any, dtype: Any) -> tuple[Device | None, Any]:
    """The arguments of `Module.to`, of which the first may be a dtype: a device or None, a dtype or None."""
    place, kind = (device, dtype) if device is None or isinstance(device, Device) else (None, device)
    try:
        if (place is None and kind is None) or (place is not device and dtype is not None):
            raise TypeError
        kind = None if kind is None else real_dtype("to", kind)
        if kind is not None and kind.kind != "f":
            raise TypeError
    except TypeError:
        raise TypeError(
            f"to: device must be a Device and dtype a floating dtype, but got {device!r} and {dtype!r}"
        ) from None
    return place, kind


def move(tensor: Tensor, device: Device | None, dtype: DTypeLike | None) -> None:
    """Give a tensor, and its gradient, other memory if they are on another device or of another floating dtype."""
    array = _moved(tensor.array, device, dtype)
    if array is not tensor.array:
        tensor.replace_array(array)
        if tensor.grad is not None:
            tensor.grad = Tensor.make_const(_moved(tensor.grad.array, device, dtype))


def _moved(array: Array, device: Device | None, dtype: Any) -> Array:
    """An array on a device and, if it is floating, in a dtype; in the memory order that it had."""
    if device is not None and device_of(array) != device:
        array = device.asarray(array)
    return array if dtype is None or array.dtype.kind != "f" else array.astype(dtype, copy=False)
