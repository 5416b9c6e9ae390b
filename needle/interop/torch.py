"""Weights and the state of optimizers from torch and back, in torch's names and layouts.

    import needle.interop.torch as interop

    interop.load_state_dict(model, "weights.safetensors")  # a file, or a state dict of tensors or arrays
    interop.save("weights.safetensors", interop.state_dict(model))
    torch_model.load_state_dict(interop.as_tensors(interop.state_dict(model)))

A model of needle that is built as torch's, with the same names of attributes, has the same names. Values are copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import HostArray
from needle.checkpoint.arrays import is_array
from needle.files import Path, path_name
from needle.interop.torch_files import UNREADABLE, as_tensors, host_value, is_torch, read, save
from needle.interop.torch_layout import Slot, slots_of, unwrapped
from needle.interop.torch_optimizer import load_optimizer_state_dict, optimizer_state_dict
from needle.nn import Module

__all__ = ["as_tensors", "load_optimizer_state_dict", "load_state_dict", "optimizer_state_dict", "read", "save"]
__all__ += ["state_dict"]

_KINDS = {"f": "floating-point", "i": "integers", "u": "integers", "b": "bools"}
_HINTS = {  # names that the parameters of a changed layer have -> how to change it back in torch
    "weight_g": "torch.nn.utils.remove_weight_norm",
    "weight_v": "torch.nn.utils.remove_weight_norm",
    "weight_u": "torch.nn.utils.remove_spectral_norm",
    "weight_orig": "torch.nn.utils.prune.remove or remove_spectral_norm",
    "weight_mask": "torch.nn.utils.prune.remove",
}


def state_dict(model: Module) -> dict[str, HostArray]:
    """The parameters and persistent buffers of a model as torch's state dict of the same model has them.

    NumPy's arrays, copies in memory by rows, of the model's dtypes. `as_tensors` makes tensors of them.

    Raises TypeError if `model` is not a Module.

    >>> from needle import nn
    >>> {name: array.shape for name, array in state_dict(nn.Linear(3, 2)).items()}
    {'weight': (2, 3), 'bias': (2,)}
    >>> [*state_dict(nn.LSTM(3, 4))]
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
    """
    check.instance("state_dict", "model", model, Module)
    return {slot.name: slot.value() for slot in slots_of(model)}


def load_state_dict(model: Module, state: Mapping[str, Any] | Path) -> None:
    """Copy torch's weights into a model: from a state dict of tensors or arrays, or the file of one, as `read` takes.

    Names must be those of `state_dict(model)`, with or without what `DistributedDataParallel` ("module.") and
    `torch.compile` ("_orig_mod.") put before them, and shapes must agree. Only `num_batches_tracked` may be missing,
    and one of the names of a tied parameter. Floating values of any width are cast to the model's dtypes; integers are
    not taken for floats. A variance that a batch normalization tracked in torch is unbiased: evaluation is the same.

    Raises ValueError, before anything changes, with all missing and unexpected names, wrong shapes and kinds;
    TypeError if `state` is neither a mapping nor a path, and what `read` raises.

    >>> import numpy as np
    >>> from needle import nn
    >>> model = nn.Linear(2, 1)
    >>> load_state_dict(model, {"weight": np.ones((1, 2)), "bias": np.zeros(1)})
    >>> model.weight.shape
    (2, 1)
    """
    check.instance("load_state_dict", "model", model, Module)
    state = state if isinstance(state, Mapping) else read(path_name("load_state_dict", "state", state))
    names = unwrapped(state, model)
    values = dict(zip(names, state.values(), strict=True))
    if len(values) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"load_state_dict: names must differ without torch's prefixes, but got {twice} twice")
    slots = {slot.name: slot for slot in slots_of(model, values)}
    present = {part.tensor for name, slot in slots.items() if name in values for part in slot.parts}
    problems = [
        f"missing {name} {slot.shape}"
        for name, slot in slots.items()
        if name not in values and not slot.is_optional and not present.issuperset(part.tensor for part in slot.parts)
    ]
    arrays: dict[str, HostArray] = {}
    for name, value in values.items():
        array, problem = _checked(name, value, slots.get(name))
        if problem:
            problems.append(problem)
        elif array is not None:
            arrays |= zip((part.name for part in slots[name].parts), slots[name].split(array), strict=True)
    problems += _apart(slots, arrays)
    if problems:
        problems += _renamed(slots, values)
        raise ValueError(f"load_state_dict: names, shapes and kinds must agree, but got {'; '.join(problems)}")
    model.load_state_dict(arrays, strict=False)


def _checked(name: str, value: Any, slot: Slot | None) -> tuple[HostArray | None, str]:
    """The array of a value that fits its place, or what is wrong."""
    if isinstance(value, Tensor):
        return None, f"{name} is a tensor of needle, in its own layout: model.load_state_dict takes it"
    try:
        array = host_value(value)
    except UNREADABLE as error:
        return None, f"{name}, whose values cannot be read: {error}"
    if slot is None:
        return None, f"unexpected {name} {type(value).__name__ if array is None else array.shape}{_hint(name, value)}"
    if array is None:
        return None, f"{name} is a {type(value).__name__}, not an array"
    own, kind = slot.parts[0].tensor.dtype.kind, array.dtype.kind
    if array.shape != slot.shape:
        return None, f"{name} has shape {slot.shape}, not {array.shape}"
    if _KINDS.get(kind) != _KINDS[own]:
        return None, f"{name} holds {_KINDS[own]}, not {array.dtype}"
    return array, ""


def _hint(name: str, value: Any) -> str:
    """What to do about a name that is not the model's."""
    if name.rpartition(".")[2] == "_extra_state":
        return " (what torch's layer keeps besides: leave it out)"
    if isinstance(value, Mapping) and any(is_torch(entry) or is_array(entry) for entry in value.values()):
        return f" (a state inside of the state: pass that, as state[{name!r}])"
    if "parametrizations." in name:
        return " (first remove_parametrizations in torch)"
    how = _HINTS.get(name.rpartition(".")[2])
    return f" (first {how} in torch)" if how else ""


def _renamed(slots: Mapping[str, Slot], values: Mapping[str, Any]) -> list[str]:
    """What to do if all names are there behind a prefix, such as that of a larger model, or of averaged weights."""
    names = [name for name, slot in slots.items() if not slot.is_optional]
    for name in values:
        prefix = name.removesuffix(names[0]) if names else ""
        if prefix.endswith(".") and all(prefix + other in values for other in names):
            return [f"all names are there behind {prefix!r}: pass those without it"]
    return []


def _apart(slots: Mapping[str, Slot], arrays: Mapping[str, HostArray]) -> list[str]:
    """Parameters with several names in the model whose values differ."""
    first: dict[Any, str] = {}
    problems = []
    for slot in slots.values():
        for part in slot.parts:
            if part.name in arrays:
                other = first.setdefault(part.tensor, part.name)
                if other != part.name and not np.array_equal(arrays[other], arrays[part.name], equal_nan=True):
                    problems.append(f"{other} and {part.name} are one parameter, not two")
    return problems
