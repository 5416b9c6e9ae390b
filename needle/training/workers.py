"""Workers of `fit`: what they must be able to share, and how they start."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend.communicator import current_communicator
from needle.distributed.launch import Copies, NotImportable, check_startable, started
from needle.graph import Value
from needle.training.loop import Run, train

__all__: list[str] = []


def check_workers(workers: Any, **parts: Any) -> int:
    """The number of workers. For more than one, the parts of a run must fit that, and pickle must be able to copy them.

    Raises ValueError or TypeError if they do not, RuntimeError where other processes cannot import the program.
    """
    count: int = check.integer("fit", "workers", workers, least=1)
    if current_communicator().size > 1:
        raise ValueError("fit: must be called by the program that starts the workers, but one of them called it")
    if count == 1:
        return count
    check_startable("fit", count)
    for device in {parameter.device for parameter in parts["model"].parameters() if parameter.device.is_async}:
        raise ValueError(f"fit: workers share the cores of a CPU and must be 1 elsewhere, but the model is on {device}")
    reduction = getattr(parts["loss_fn"], "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"fit: loss_fn must be a mean over items for workers, but got reduction {reduction!r}")
    if hasattr(parts["forward"], "state_dict"):
        got = type(parts["forward"]).__name__
        raise ValueError(f"fit: forward must have no state if there are workers, each with its own, but got {got}")
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
    """`train(run)` in as many processes as the run's state says, each with a copy of the run except for the first."""
    if run.state.workers == 1 or run.is_over:
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

    A SIGTERM that goes to all processes is for the first worker, which may end after the step; the others end with it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gradients, hooks = pending
    run.stepper.load_state_dict(gradients)
    for parameter, functions in zip(run.optimizer.params, hooks, strict=True):
        if functions is not None:
            parameter.hooks, Value.hooks_exist = functions, True
    train(run)
