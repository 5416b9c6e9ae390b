"""What the workers of a run tell each other, so that all of them do the same.

Each runs the whole loop, on its items of every batch. With one worker nothing is exchanged.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from needle.autograd import Tensor
from needle.backend import HostArray, get_rng_state, set_rng_state, to_host
from needle.backend.communicator import Part, current_communicator
from needle.data.nested import leaves, mapped
from needle.nn import Module
from needle.optim import Optimizer
from needle.training.figures import items_in
from needle.training.state import TrainingState


def check_divisible(op: str, loss_fn: Any, forward: Any) -> None:
    """Raise ValueError unless loss and forward may see a part of each batch."""
    reduction = getattr(loss_fn, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"{op}: loss_fn must be a mean over items for workers, but got reduction {reduction!r}")
    if hasattr(forward, "state_dict"):
        got = type(forward).__name__
        raise ValueError(f"{op}: forward must have no state if there are workers, each with its own, but got {got}")


def whole_count(items: int) -> int:
    """How many there are in the whole batch, if there are `items` in this worker's part of it."""
    part = current_communicator().part
    return items if part is None else items * part.total // part.items


def whole_batch(outputs: Any, targets: Any, is_seen: bool) -> tuple[Any, Any, int]:
    """Outputs, targets and number of items of a whole batch, from those of each worker's items.

    Outputs and targets are gathered only if somebody sees them, in one exchange, in float64.

    Raises TypeError if one of them holds anything but tensors and arrays, ValueError if one has no axis of items.
    """
    communicator, items = current_communicator(), whole_count(items_in(targets))
    part = communicator.part
    if part is None or not is_seen:
        return outputs, targets, items
    fields = [_checked(field) for field in leaves((outputs, targets))]
    shapes = [_whole_shape(field, part) for field in fields]
    ends = np.cumsum([prod(shape) for shape in shapes])
    flat = np.zeros(ends[-1])
    wholes = [place.reshape(shape) for place, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
    for field, whole in zip(fields, wholes, strict=True):
        start = part.start * (len(whole) // part.total)
        whole[start : start + len(field)] = to_host(field.array if isinstance(field, Tensor) else field)
    communicator.all_reduce(flat)
    values = iter(wholes)
    return *mapped(lambda field: _like(field, next(values)), (outputs, targets)), items


def _checked(value: Any) -> Any:
    if not isinstance(value, (Tensor, np.ndarray)):
        got = type(value).__name__
        raise TypeError(f"fit: outputs and targets that workers gather for metrics must be tensors, but got {got}")
    return value


def _like(field: Any, values: HostArray) -> Any:
    """Values in the dtype and on the device of a field."""
    values = values.astype(field.dtype)
    return Tensor.make_const(field.device.array(values)) if isinstance(field, Tensor) else values


def _whole_shape(field: Any, part: Part) -> tuple[int, ...]:
    """The shape of outputs or targets of a whole batch."""
    per_item, rest = divmod(field.shape[0] if field.shape else 1, part.items)
    if rest or not field.shape:
        raise ValueError(
            "fit: outputs and targets that workers gather for metrics must have the items along their first axis, but "
            f"got shape {field.shape} for {part.items} items"
        )
    return (per_item * part.total, *field.shape[1:])


def begin_alike(model: Module, optimizer: Optimizer) -> None:
    """Give all workers what the first one's callbacks may have changed before an epoch: random stream, weights, modes.

    It is also what keeps workers together whose random streams went apart within an epoch.
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
        for tensor in _weights(model):
            communicator.broadcast(tensor.array)


def share_stream() -> None:
    """Let all workers draw what the first one draws: they read the same batches of a shuffled loader."""
    if current_communicator().size > 1:
        set_rng_state(of_rank_0(get_rng_state()))


def _weights(model: Module) -> Iterable[Tensor]:
    """Parameters and buffers, each once."""
    tensors = [*model.parameters(), *(buffer for _, buffer in model.named_buffers() if buffer is not None)]
    return {id(tensor): tensor for tensor in tensors}.values()


def of_rank_0(value: Any) -> Any:
    """Plain data of rank 0, on all ranks."""
    communicator = current_communicator()
    content = np.frombuffer(pickle.dumps(value), "uint8").copy()
    length = np.array([len(content)])
    communicator.broadcast(length)
    content.resize(length, refcheck=False)
    communicator.broadcast(content)
    return pickle.loads(content.tobytes())


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
