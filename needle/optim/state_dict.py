"""The state of an optimizer as plain data, in torch's form: made, read, and compared before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from needle import check
from needle.autograd import Tensor
from needle.backend import device_of, to_host, xp
from needle.optim.flat import Cohort, Fills, Numbers, State
from needle.optim.groups import Group

__all__ = ["Entry", "made", "read", "restored"]

Array: TypeAlias = Any
Entry: TypeAlias = dict[str, Any]  # the numbers and arrays of one parameter, by name; {} before its first step

OP = "load_state_dict"
TORCH = ("foreach", "fused", "capturable", "differentiable", "param_names")  # in torch's groups; they change no value


def made(groups: Sequence[Group], state: State, fills_of: Callable[[Group], Fills], copy: bool) -> dict[str, Any]:
    """The state dict of parameters in groups; an entry holds what the next step begins with."""
    numbers = {parameter: cohort.numbers for cohort in state.cohorts for parameter in cohort.params}
    entries: dict[int, Entry] = {}
    saved, start = [], 0
    for group in groups:
        params, fills = group["params"], fills_of(group)
        for index, parameter in enumerate(params, start):
            if parameter in numbers:
                arrays = state.arrays_of(parameter, parameter.array, fills)
                entry = numbers[parameter] | {name: _to_host(array, copy) for name, array in arrays.items()}
                entries |= {index: entry} if entry else {}
        saved.append({**group, "params": [*range(start, start + len(params))]})
        start += len(params)
    return {"state": entries, "param_groups": saved}


def _to_host(array: Array, copy: bool) -> Array:
    """A NumPy array, with memory of its own if `copy`."""
    host = to_host(array)
    return host.copy() if copy and host is array else host


def read(state: Any) -> list[tuple[Group, list[Entry]]]:
    """The groups of a state dict, without "params", each with the entries of its parameters.

    Raises TypeError or ValueError if the state does not have torch's form.
    """
    state = check.entries(OP, "state", state, ("state", "param_groups"))
    entries: dict[int, Entry] = {}
    for key, entry in check.instance(OP, 'state["state"]', state["state"], dict).items():
        check.instance(OP, "each entry of the state", entry, dict)
        entries[_index(key)] = {name: value for name, value in entry.items() if value is not None}
    groups: list[tuple[Group, list[Entry]]] = []
    seen: list[int] = []
    for group in check.instance(OP, 'state["param_groups"]', state["param_groups"], list):
        params = check.instance(OP, "each of param_groups", group, dict).get("params")
        indices = [_index(key) for key in check.instance(OP, 'each "params" of a group', params, list)]
        options = {name: value for name, value in group.items() if name not in ("params", *TORCH)}
        groups.append((options, [entries.get(index, {}) for index in indices]))
        seen += indices
    if len({*seen}) < len(seen) or not entries.keys() <= {*seen}:
        entries_of = f"{seen} in groups, and entries for {[*entries]}"
        raise ValueError(f"{OP}: each parameter must be in one group, and each entry be one's, but got {entries_of}")
    return groups


def _index(key: Any) -> int:
    """The index of a parameter: an integer, or text that names one, as in JSON."""
    key = int(key) if isinstance(key, str) and key.isdecimal() else key
    return check.integer(OP, "each index of a parameter", key, least=0)


def restored(
    groups: Sequence[Group],
    entries: Sequence[list[Entry]],
    fills_of: Callable[[Group], Fills],
    numbers_of: Callable[[Group], Numbers],
) -> State:
    """The state of parameters in groups, with new arrays.

    Raises ValueError, with all that does not fit, if the entries are not those of the parameters.
    """
    state, alike, problems, start = State(), dict[Any, list[Tensor]](), [], 0
    for position, (group, own) in enumerate(zip(groups, entries, strict=True)):
        params, fills, names = group["params"], fills_of(group), tuple(numbers_of(group))
        if len(own) != len(params):
            problems.append(f"{len(own)} parameters for the {len(params)} of group {position}")
        for index, (parameter, entry) in enumerate(zip(params, own, strict=False), start):
            if not entry:
                continue
            array = parameter.array
            problems += [f"{problem} for parameter {index}" for problem in _misfits(entry, array, fills, names)]
            if not problems:
                numbers = tuple((name, int(entry[name]) if name == "step" else _number(entry[name])) for name in names)
                alike.setdefault((position, numbers), []).append(parameter)
                state.arrays[parameter] = {
                    name: _like(array, value) for name, value in entry.items() if name not in names
                }
        start += len(params)
    if problems:
        raise ValueError(f"{OP}: the state must fit the optimizer, but got {'; '.join(problems)}")
    state.cohorts = [Cohort(params, dict(numbers)) for (_, numbers), params in alike.items()]
    return state


def _misfits(entry: Entry, array: Array, fills: Fills, numbers: Sequence[str]) -> Iterator[str]:
    """What does not fit in the entry of a parameter with the data `array`, whose rule keeps `numbers` and `fills`."""
    yield from (f"no {name}" for name in (*numbers, *fills) if name not in entry)
    for name, value in entry.items():
        value = _host(value)
        if name in numbers:
            number = _number(value)
            if math.isnan(number) or (name == "step" and not (number >= 0 and number.is_integer())):
                yield f"a {name} of {value!r}"
        elif type(value).__module__.partition(".")[0] == "torch":
            yield f"{name} as a torch tensor (pass its .numpy(); that of Linear.weight as .T.numpy())"
        elif not (hasattr(value, "shape") and hasattr(value, "dtype")):
            yield f"{name} as a {type(value).__name__}, not an array,"
        elif value.shape != array.shape or value.dtype.newbyteorder("=") != array.dtype:
            yield f"{name} of shape {value.shape} and {value.dtype}, not {array.shape} and {array.dtype},"


def _host(value: Any) -> Any:
    """An array of any device, or a tensor, as a NumPy array; anything else as it is."""
    return to_host(value.array if isinstance(value, Tensor) else value)


def _number(value: Any) -> float:
    """A number, or an array of shape (); NaN if it is none."""
    value = value.item() if getattr(value, "shape", None) == () else value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _like(array: Array, value: Any) -> Array:
    """A value of a state as a new array on the device of `array` and in its memory order."""
    placed = xp(array).empty_like(array)
    placed[...] = device_of(array).array(_host(value))
    return placed
