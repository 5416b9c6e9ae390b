"""The state of optimizers from torch and back: buffers lie as the parameters do, and names tell which is whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import HostArray
from needle.interop.torch_files import UNREADABLE, host_value
from needle.interop.torch_layout import Slot, slots_of, unwrapped
from needle.nn import Module
from needle.optim import SGD, Optimizer
from needle.optim.state_dict import read

__all__ = ["load_optimizer_state_dict", "optimizer_state_dict"]


def optimizer_state_dict(model: Module, optimizer: Optimizer, names: Iterable[str]) -> dict[str, Any]:
    """The `state_dict` of an optimizer in torch's order and layouts, for the `load_state_dict` of torch's.

    `names` are torch's names of the parameters in the order of torch's optimizer: torch finds them by their place
    alone, and checks nothing. The state dict of the model does, if the optimizer was made of `model.parameters()`.
    Names of buffers, and of parameters that the optimizer does not have, are passed over. Arrays are NumPy's: torch
    needs `as_tensors` of the result.

    `SGD` with `dampening=None` tells its dampening, the momentum. It scales the first step too, which torch's does not:
    runs are equal if a step was taken.

    Raises ValueError if the names are not those of the parameters, TypeError for arguments of other types.
    """
    groups = _groups("optimizer_state_dict", model, optimizer, names)
    own = optimizer.state_dict()
    index = {parameter: i for i, parameter in enumerate(optimizer.params)}
    entries: dict[int, Any] = {}
    saved, start = [], 0
    for slots, group in zip(groups, own["param_groups"], strict=True):
        for i, slot in enumerate(slots, start):
            parts = [own["state"].get(index[part.tensor]) for part in slot.parts]
            if all(parts):
                entries[i] = {key: _joined(slot, [part[key] for part in parts]) for key in parts[0]}
        options = group | _own_dampening(optimizer, group)
        saved.append(options | {"params": [*range(start, start + len(slots))], "param_names": [s.name for s in slots]})
        start += len(slots)
    return {"state": entries, "param_groups": saved}


def load_optimizer_state_dict(
    model: Module, optimizer: Optimizer, state: Mapping[str, Any], names: Iterable[str] | None = None
) -> None:
    """Take over the options and the state of torch's optimizer of the same kind, such as Adam's moments and steps.

    `state` is its `state_dict()`, of tensors or arrays. `names` are torch's names of the parameters in the order in
    which its optimizer got them, such as the state dict of its model; a state that has `param_names` needs none.
    Buffers are transposed and cast as the parameters are. Options that the state lacks stay.

    Raises ValueError or TypeError, before anything changes, with all that does not fit.
    """
    op = "load_optimizer_state_dict"
    saved = read(state)
    known = [group.get("param_names") for group in state["param_groups"]]
    known = [names if isinstance(names, (list, tuple)) else None for names in known]
    if names is None:
        if None in known:
            raise ValueError(f"{op}: names must be given, as the state dict of torch's model, but the state has none")
        names = [name for group in known for name in group]
    groups = _groups(op, model, optimizer, names)
    counts, own_counts = [len(given) for _, given in saved], [len(slots) for slots in groups]
    if counts != own_counts:
        raise ValueError(
            f"{op}: groups must have as many parameters as the optimizer's, {own_counts}, but got {counts}"
        )
    index = {parameter: i for i, parameter in enumerate(optimizer.params)}
    entries: dict[int, dict[str, Any]] = {}
    merged, problems = [], []
    for slots, (options, given), told, own in zip(groups, saved, known, optimizer.param_groups, strict=True):
        if told is not None and unwrapped(told, model) != [slot.name for slot in slots]:
            problems.append(f"a group of {', '.join(map(str, told))}")
        for slot, entry in zip(slots, given, strict=True):
            for key, value in entry.items():
                try:
                    array = host_value(value)
                except UNREADABLE as error:
                    problems.append(f"{key} of {slot.name}: {error}")
                    continue
                if array is not None and array.ndim and array.shape != slot.shape:
                    problems.append(f"{key} of {slot.name} of shape {array.shape}, not {slot.shape}")
                    continue
                if array is not None and array.ndim and array.dtype.kind != "f":
                    problems.append(f"{key} of {slot.name} of dtype {array.dtype}, not floating-point")
                    continue
                for part, piece in zip(slot.parts, _split(slot, value, array), strict=True):
                    entries.setdefault(index[part.tensor], {})[key] = piece
        for key, value in options.items():
            try:
                options[key] = _number(value)
            except UNREADABLE as error:
                problems.append(f"{key}: {error}")
        merged.append({**own, **options, "params": [index[parameter] for parameter in own["params"]]})
    if problems:
        raise ValueError(f"{op}: the state must fit the parameters, but got {'; '.join(problems)}")
    optimizer.load_state_dict({"state": entries, "param_groups": merged})


def _groups(op: str, model: Any, optimizer: Any, names: Iterable[str]) -> list[list[Slot]]:
    """torch's parameters in each group of the optimizer, in the order of `names`."""
    check.instance(op, "model", model, Module)
    check.instance(op, "optimizer", optimizer, Optimizer)
    names = unwrapped(names, model)
    slots = {slot.name: slot for slot in slots_of(model, names)}
    group_of = {parameter: i for i, group in enumerate(optimizer.param_groups) for parameter in group["params"]}
    groups: list[list[Slot]] = [[] for _ in optimizer.param_groups]
    unknown, seen = [name for name in names if name not in slots], set[Tensor]()
    split = []
    for name in names:
        if name in slots:
            tensors = [part.tensor for part in slots[name].parts]
            places = {group_of.get(tensor) for tensor in tensors}
            if len(places) > 1:
                split.append(name)
            elif seen.isdisjoint(tensors) and (place := places.pop()) is not None:
                groups[place].append(slots[name])
            seen.update(tensors)
    absent = sum(parameter not in seen for parameter in group_of)
    if unknown or absent or split:
        got = [f"unknown {', '.join(map(str, unknown))}"] * bool(unknown) + [f"none for {absent}"] * bool(absent)
        got += [f"{', '.join(split)} for parts of several groups"] * bool(split)
        raise ValueError(f"{op}: names must be those of the parameters of the optimizer, but got {'; '.join(got)}")
    return groups


def _joined(slot: Slot, values: Sequence[Any]) -> Any:
    """The entry of torch's parameter of those of its parts."""
    return slot.join([*values]) if isinstance(values[0], np.ndarray) and values[0].ndim else values[0]


def _split(slot: Slot, value: Any, array: HostArray | None) -> list[Any]:
    """The entries of the parts of torch's parameter of a number or an array; arrays in the dtypes of the parts."""
    if array is None or array.ndim < len(slot.shape):
        return [value if array is None else array.item()] * len(slot.parts)
    return [piece.astype(part.tensor.dtype) for part, piece in zip(slot.parts, slot.split(array), strict=True)]


def _number(value: Any) -> Any:
    """An option: a tensor of one element as a number, also in a tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_number, value))
    array = host_value(value)
    return value if array is None or array.size != 1 else array.item()


def _own_dampening(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, float]:
    """The dampening of a group of `SGD` as a number, which torch needs."""
    if isinstance(optimizer, SGD) and group["dampening"] is None:
        return {"dampening": 0.0 if group["nesterov"] else group["momentum"]}
    return {}
