"""How the ranks that call `fit` together begin: with the state of rank 0, which alone has callbacks and files."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from needle.backend.communicator import Communicator, current_communicator, require_alike
from needle.checkpoint.arrays import host_array
from needle.checkpoint.structure import flatten, nested
from needle.training.exchanges import of_rank_0
from needle.training.loop import Run

__all__: list[str] = []


def share_start(run: Run, **arguments: Any) -> None:
    """Give the runs of all ranks the state of rank 0's run, and of its loss; only rank 0 has callbacks.

    Raises ValueError on all ranks if their `arguments` differ, and what the parts raise if rank 0's state does not fit
    them.
    """
    communicator = current_communicator()
    if communicator.size == 1:
        return
    state, loss_fn = run.state, cast(Any, run.loss_fn)
    require_alike("fit", communicator, arguments)
    run.save_every, is_over = of_rank_0((run.save_every, state.stopped is not None))
    loss = loss_fn.state_dict() if hasattr(loss_fn, "state_dict") else {}
    mine = state.state_dict(copy=False) | {"callbacks": {}}  # which are rank 0's alone
    shared = _state_of_rank_0(communicator, {"run": mine, "loss": loss})
    if communicator.rank:
        state.load_state_dict(shared["run"])
        if loss or shared["loss"]:
            loss_fn.load_state_dict(shared["loss"])
        if is_over:
            state.stop("by rank 0")


def _state_of_rank_0(communicator: Communicator, state: dict[str, Any]) -> dict[str, Any]:
    """Plain data, as a file would give it back. Arrays go one by one, so there is no second copy of them all."""
    arrays, text = flatten("fit", state)
    kinds = {name: (tuple(value.shape), value.dtype.str) for name, value in arrays.items()}
    kinds, text = of_rank_0((kinds, text))
    received = {}
    for name, (shape, dtype) in kinds.items():
        array = np.array(host_array(arrays[name]), order="C") if communicator.rank == 0 else np.empty(shape, dtype)
        communicator.broadcast(array.reshape(-1).view("uint8"))
        if communicator.rank:
            received[name] = array
    return nested(received, text) if communicator.rank else state
