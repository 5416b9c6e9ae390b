"""Workers of `fit`: what a run must be like to be divided, and how workers start."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend.communicator import current_communicator
from needle.data import Shard
from needle.distributed.launch import Copies, NotImportable, check_startable, started
from needle.graph import Value
from needle.training.exchanges import check_divisible
from needle.training.loop import Run, train

__all__: list[str] = []


def check_workers(workers: Any, **parts: Any) -> int:
    """How many processes compute each batch together: the ranks that call `fit`, or as many workers as asked for.

    If there are several, the parts of a run must fit that, and pickle must be able to copy what workers get.

    Raises ValueError or TypeError if they do not, RuntimeError where other processes cannot import the program.
    """
    count: int = check.integer("fit", "workers", workers, least=1)
    ranks = current_communicator().size
    if ranks > 1:
        if count > 1:
            raise ValueError(f"fit: workers must be 1 where several ranks call it, but got {count} on each of {ranks}")
        check_divisible("fit", parts["loss_fn"], parts["forward"])
        return ranks
    if count == 1:
        return count
    check_startable("fit", count)
    for name in ("train_loader", "validation"):
        if isinstance(getattr(parts.get(name), "dataset", None), Shard):
            raise ValueError(f"fit: {name} must not be of a Shard for workers, which get copies of it, but got one")
    for device in {parameter.device for parameter in parts["model"].parameters() if parameter.device.is_async}:
        raise ValueError(f"fit: workers share the cores of a CPU and must be 1 elsewhere, but the model is on {device}")
    check_divisible("fit", parts["loss_fn"], parts["forward"])
    for name, part in parts.items():
        require_copies(name, part)
    require_copies("hooks of the parameters", hooks_of(parts["optimizer"].params))
    return count


class _Nowhere:
    """A file that forgets what is written."""

    def write(self, content: Any) -> int:
        return len(content)


def require_copies(name: str, part: Any) -> None:
    """Raise TypeError unless pickle can copy a part of a run into another process."""
    try:
        Copies(f"fit: for several workers {name}", _Nowhere(), buffer_callback=lambda buffer: None).dump(part)
    except NotImportable as error:
        raise TypeError(str(error)) from None
    except Exception as error:
        raise TypeError(
            f"fit: for several workers {name} must be something that pickle can copy, with functions and classes that "
            f"stand at the top of a module, but got: {error}"
        ) from error


def train_by_workers(run: Run) -> None:
    """`train(run)` in as many processes as the run's state says.

    Unless the other ranks have called `fit` as well, they are started, each with a copy of the run.
    """
    if run.state.workers == current_communicator().size or run.is_over:
        train(run)
        return
    with started(run.state.workers, go_on, run, left_behind(run), caller="fit"):
        train(run)


def left_behind(run: Run) -> tuple[dict[str, Any], list[Any]]:
    """What copies of parameters do not have: the gradients of an incomplete group of batches, and hooks."""
    return run.stepper.state_dict(), hooks_of(run.optimizer.params)


def hooks_of(parameters: Iterable[Tensor]) -> list[Any]:
    """The hooks of each parameter, None where there are none."""
    return [getattr(parameter, "hooks", None) for parameter in parameters]


def go_on(run: Run, pending: tuple[dict[str, Any], list[Any]]) -> None:
    """`train(run)` of a copy, to which `pending` brings what it has left behind.

    A SIGTERM that goes to all processes is for rank 0, which may end after the step; the others end with it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gradients, hooks = pending
    run.stepper.load_state_dict(gradients)
    for parameter, functions in zip(run.optimizer.params, hooks, strict=True):
        if functions is not None:
            parameter.hooks, Value.hooks_exist = functions, True
    train(run)
