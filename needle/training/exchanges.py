"""What the ranks of a run tell each other, so that all of them do the same.

Each runs the whole loop, on its items of every batch. With one rank nothing is exchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from needle.autograd import Tensor
from needle.backend import device_of, get_rng_state, set_rng_state, to_host
from needle.backend.communicator import Array, Part, current_communicator
from needle.data.nested import leaves, mapped
from needle.nn import Module
from needle.optim import Optimizer
from needle.training.figures import items_in
from needle.training.state import TrainingState


def check_divisible(op: str, loss_fn: Any, forward: Any) -> None:
    """Raise ValueError unless loss and forward may see a part of each batch."""
    reduction = getattr(loss_fn, "reduction", "mean")
    if reduction != "mean":
        got = f"reduction {reduction!r}"
        raise ValueError(f"{op}: loss_fn must be a mean over items for several processes, but got {got}")
    if hasattr(forward, "state_dict"):
        got = type(forward).__name__
        raise ValueError(f"{op}: forward must have no state for several processes, each with its own, but got {got}")


def whole_count(items: int) -> int:
    """How many there are in the whole batch, if there are `items` in this rank's part of it."""
    part = current_communicator().part
    return items if part is None else items * part.total // part.items


def whole_batch(outputs: Any, targets: Any, is_seen: bool) -> tuple[Any, Any, int]:
    """Outputs, targets and number of items of a whole batch, from those of each rank's items.

    Outputs and targets are gathered only if somebody sees them: those of one device in one exchange, as their bytes.

    Raises TypeError if one of them holds anything but tensors and arrays, ValueError if one has no axis of items.
    """
    communicator, items = current_communicator(), whole_count(items_in(targets))
    part = communicator.part
    if part is None or not is_seen:
        return outputs, targets, items
    values = iter(_gathered([_checked(field, part) for field in leaves((outputs, targets))], part.items))
    return *mapped(lambda field: _like(field, next(values)), (outputs, targets)), items


def _checked(field: Any, part: Part) -> Array:
    """The array of a field of outputs or targets."""
    if not isinstance(field, (Tensor, np.ndarray)):
        got = type(field).__name__
        raise TypeError(f"fit: outputs and targets that ranks gather for metrics must be tensors, but got {got}")
    if not field.shape or field.shape[0] % part.items:
        raise ValueError(
            "fit: outputs and targets that ranks gather for metrics must have the items along their first axis, but "
            f"got shape {field.shape} for {part.items} items"
        )
    return field.array if isinstance(field, Tensor) else field


def _gathered(arrays: list[Array], items: int) -> list[Array]:
    """Arrays of the whole batch, from those of a part with so many items."""
    wholes = [*arrays]
    for device in dict.fromkeys(map(device_of, arrays)):
        xp, places = device.xp, [i for i, array in enumerate(arrays) if device_of(array) == device]
        rows = [_bytes_of_items(xp.ascontiguousarray(arrays[i]), items) for i in places]
        ends = np.cumsum([row.shape[1] for row in rows])
        whole = xp.concatenate(current_communicator().all_gather(xp.concatenate(rows, axis=1)))
        for i, columns in zip(places, xp.split(whole, ends[:-1].tolist(), axis=1), strict=True):
            shape = (len(whole) * len(arrays[i]) // items, *arrays[i].shape[1:])
            wholes[i] = xp.ascontiguousarray(columns).reshape(-1).view(arrays[i].dtype).reshape(shape)
    return wholes


def _bytes_of_items(array: Array, items: int) -> Array:
    """The bytes of an array, a row for each item."""
    return array.reshape(-1).view("uint8").reshape(items, array.nbytes // items)


def _like(field: Any, array: Array) -> Any:
    """A tensor where the field is one."""
    return Tensor.make_const(array) if isinstance(field, Tensor) else array


def gather_for_rank_0(parameters: list[Tensor], terms: list[Tensor | None]) -> list[list[Any]]:
    """On rank 0 the terms of every rank as arrays, by rank; elsewhere nothing. They are shaped like the parameters."""
    communicator, gathered = current_communicator(), []
    for root, are_there in enumerate(communicator.all_gather(np.array([term is not None for term in terms], bool))):
        of_rank: list[Any] = [None] * len(terms)
        for i, (parameter, term) in enumerate(zip(parameters, terms, strict=True)):
            if are_there[i]:
                values = np.empty(parameter.shape, parameter.dtype)
                if term is not None and root == communicator.rank:
                    values[...] = to_host(term.array)
                communicator.broadcast(values, root)
                if communicator.rank == 0:
                    of_rank[i] = values
        gathered.append(of_rank)
    return gathered if communicator.rank == 0 else []


def begin_alike(model: Module, optimizer: Optimizer) -> None:
    """Give all ranks what rank 0's callbacks may have changed before an epoch: random stream, weights, modes.

    It is also what keeps ranks together whose random streams went apart within an epoch.
    """
    if current_communicator().size == 1:
        return
    groups = optimizer.param_groups
    modules, parameters = [module for _, module in model.named_modules()], [*model.parameters()]
    options = [{name: option for name, option in group.items() if name != "params"} for group in groups]
    modes, trained = [module.training for module in modules], [parameter.requires_grad for parameter in parameters]
    options, modes, trained = of_rank_0((options, modes, trained))
    share_stream()
    for group, values in zip(groups, options, strict=True):
        group.update(values)
    for module, mode in zip(modules, modes, strict=True):
        module.training = mode
    for parameter, is_trained in zip(parameters, trained, strict=True):
        parameter.requires_grad = is_trained
    share_weights(model)


def share_weights(model: Module) -> None:
    """Give all ranks the parameters and buffers of rank 0's model."""
    communicator = current_communicator()
    if communicator.size > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            communicator.broadcast(tensor.array)


def share_stream() -> None:
    """Let all ranks draw what rank 0 draws: they read the same batches of a shuffled loader."""
    if current_communicator().size > 1:
        set_rng_state(of_rank_0(get_rng_state()))


def share_place(loader: Any) -> None:
    """Let all ranks begin the epoch that rank 0 does: its callbacks may have read a loader with a seed of its own."""
    if current_communicator().size > 1 and hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        place = of_rank_0(loader.state_dict())
        if current_communicator().rank:
            loader.load_state_dict(place)


def of_rank_0(value: Any) -> Any:
    """Plain data of rank 0, on all ranks."""
    communicator = current_communicator()
    return communicator.all_gather_object(None if communicator.rank else value)[0]


def obey(state: TrainingState, optimizer: Optimizer) -> None:
    """Do what the callbacks of rank 0 decided: to stop, or to go on at other learning rates."""
    communicator = current_communicator()
    if communicator.size == 1:
        return
    groups = optimizer.param_groups
    decisions = np.array([state.stopped is not None, *(group["lr"] for group in groups)], "float64")
    communicator.broadcast(decisions)
    stops, *rates = decisions.tolist()
    for group, rate in zip(groups, rates, strict=True):
        if group["lr"] != rate:
            group["lr"] = rate
    if stops and state.stopped is None:
        state.stop("by rank 0")


def end_alike(state: TrainingState, model: Module, optimizer: Optimizer) -> None:
    """Give all ranks what rank 0's callbacks may have changed at the end, and its history, whose times are its own."""
    if current_communicator().size > 1:
        begin_alike(model, optimizer)
        state.history[:] = of_rank_0(state.history)
