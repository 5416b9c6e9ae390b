"""`capture`: which calls run eagerly, which one is recorded, and which ones are replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import update_wrapper
from threading import RLock
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar

from needle.autograd import Tensor
from needle.backend import CannotRecord, Device, cpu, default_device, noting, tf32_allowed
from needle.backend.communicator import current_communicator
from needle.capture.arguments import devices_of_work, kind_of, tensors_in
from needle.capture.recorded import MustBeEager, Recorded
from needle.grad_mode import mode
from needle.kernels.conv.dispatch import requested_algorithms

__all__ = ["Captured", "capture"]

P = ParamSpec("P")
R = TypeVar("R")

EAGER_CALLS = 2  # before a call is recorded: kernels are compiled, and the state of optimizers comes to be
MOST_RECORDINGS = 4
MOST_USELESS = 3
MOST_KINDS = 64  # of arguments whose calls are counted
MANY_KINDS = (
    f"capture: the step has got {MOST_KINDS} kinds of arguments, so others run eagerly. Each value of an argument that "
    "is no tensor is a kind of its own: pass what changes from call to call as a tensor"
)


def capture(step: Callable[P, R]) -> Captured[P, R]:
    """A function that does what `step` does, in later calls without Python: the work is recorded, then replayed.

    Calls are told apart by their arguments: of tensors, also within tuples, lists and dicts, by shape, dtype, memory
    order and device, of anything else by value. For each kind the step runs eagerly twice, then is recorded; on the CPU
    the next call compares a replay with an eager step. Further calls are replays: they copy the arguments to where the
    work reads them, and give the results of an eager step, to the bit on the CPU. At most four kinds are recorded;
    others run eagerly.

    A replay heeds the options of optimizers and draws new random numbers. If a parameter, a module or an optimizer's
    state has been replaced, the step is recorded again. Results are tensors without a graph. `.grad` of parameters is
    overwritten by the next replay. The step's own Python does not run: what it prints or counts, it does no more.

    Warns once if the step cannot be recorded, as with `.item()` in it, and runs it eagerly from then on. Raises
    TypeError if `step` is not callable, and what the step raises.

    >>> import needle as ndl
    >>> model = ndl.nn.Linear(3, 2)
    >>> optimizer = ndl.optim.SGD(model.parameters(), lr=0.1)
    >>> def step(x: ndl.Tensor, y: ndl.Tensor) -> ndl.Tensor:
    ...     optimizer.reset_grad()
    ...     loss = ((model(x) - y) ** 2).mean()
    ...     loss.backward(create_graph=False)
    ...     optimizer.step()
    ...     return loss
    >>> step = ndl.capture(step)
    >>> losses = [step(ndl.ones(4, 3), ndl.ones(4, 2)) for _ in range(5)]
    >>> losses[4].item() < losses[0].item()
    True
    """
    if not callable(step):
        raise TypeError(f"capture: step must be callable, but got {type(step).__name__}")
    return Captured(step)


class Kind:
    """Calls with arguments of one kind: how many of them were eager, and what was recorded then."""

    def __init__(self) -> None:
        self.calls = 0
        self.recorded: Recorded | None = None
        self.devices: dict[str, Device] = {}  # by name, of the work of the last eager call before a recording
        self.useless = 0  # recordings, one after the other, that were not replayed before something had changed

    def device(self, tensors: Sequence[Tensor]) -> Device:
        """The device on which a call with these arguments works."""
        devices = self.devices | {tensor.device.name: tensor.device for tensor in tensors}
        if len(devices) > 1:
            names = " and ".join(f"{device!r}" for device in devices.values())
            raise MustBeEager(CannotRecord("capture", f"work on {names}"))
        return next(iter(devices.values()), default_device())

    def drop(self) -> None:
        """Give up the recording, since something has changed: the calls count from 0 again."""
        assert self.recorded is not None
        self.useless = 0 if self.recorded.replays else self.useless + 1
        if self.useless == MOST_USELESS:
            raise MustBeEager(CannotRecord("capture", "a tensor, a module or an optimizer that changes between calls"))
        self.calls, self.recorded = 0, None


class Captured(Generic[P, R]):
    """A captured step; see `capture`."""

    def __init__(self, step: Callable[P, R]) -> None:
        self._step = step
        self._kinds: dict[Hashable, Kind] = {}
        self._is_eager = False  # for good
        self._lock = RLock()
        update_wrapper(self, step, updated=())

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A captured method of an instance, as of any function in a class: the instance is an argument."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        """A copy captures anew."""
        return capture, (self._step,)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        is_watched = noting.recorder is not None or mode.watchers
        if self._is_eager or is_watched:
            return self._step(*args, **kwargs)
        with self._lock:
            try:
                result: R = self._call(args, kwargs)
                return result
            except MustBeEager as failure:
                self._is_eager = True
                self._kinds.clear()
                message = str(failure).removeprefix("capture: ")
                warnings.warn(f"capture: {message}; the step runs eagerly from now on", stacklevel=2)
                return failure.result if failure.is_done else self._step(*args, **kwargs)

    def _call(self, args: Any, kwargs: Any) -> Any:
        tensors = tensors_in((args, kwargs))
        kind = self._kind_of(args, kwargs, tensors)
        recorded = kind.recorded
        if recorded is not None:
            if recorded.holds():
                return recorded(self._step, args, kwargs, tensors)
            kind.drop()
        count = sum(other.recorded is not None for other in self._kinds.values())
        if kind.calls < EAGER_CALLS or count >= MOST_RECORDINGS:
            kind.calls += 1
            if kind.calls != EAGER_CALLS:
                return self._step(*args, **kwargs)
            with devices_of_work() as kind.devices:
                return self._step(*args, **kwargs)
        device = kind.device(tensors)
        if current_communicator().size > 1 and device != cpu():
            return self._step(*args, **kwargs)
        recorded = Recorded(device, tensors)
        result = recorded.record(self._step, args, kwargs, tensors)
        kind.recorded = recorded
        return result

    def _kind_of(self, args: Any, kwargs: Any, tensors: list[Tensor]) -> Kind:
        """The kind of these arguments, with its calls so far. It also depends on the mode of the thread."""
        seen: dict[int, int] = {}
        try:
            for tensor in tensors:
                if tensor.op is not None:
                    raise CannotRecord("capture", "an argument with a graph")
            key: Hashable = (kind_of(args, seen), kind_of(kwargs, seen))
        except CannotRecord as error:
            raise MustBeEager(error) from error
        device = tensors[0].device if tensors else default_device()
        settings = (mode.recording, device.worker_count(), default_device(), tf32_allowed())
        communicator = current_communicator()
        ranks = communicator.size, communicator.part  # shares of the batch are constants of a recording
        key = (key, settings, ranks, tuple(requested_algorithms().items()))
        kind = self._kinds.get(key)
        if kind is None:
            kind = Kind()
            if len(self._kinds) < MOST_KINDS:
                self._kinds[key] = kind
                if len(self._kinds) == MOST_KINDS:
                    warnings.warn(MANY_KINDS, stacklevel=4)
        return kind
