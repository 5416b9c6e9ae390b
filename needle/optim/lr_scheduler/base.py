"""The base of all schedules: counting epochs, setting rates, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias, TypeVar

from needle import check
from needle.backend import refuse
from needle.optim.groups import finite
from needle.optim.optimizer import Optimizer

__all__ = ["LRScheduler"]

Check: TypeAlias = Callable[[str, str, Any], Any]  # (operation, name, value) -> the value in its canonical form
T = TypeVar("T")


def numbers(op: str, name: str, value: Any) -> list[float]:
    """A list or tuple of finite numbers of at least 0."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{op}: {name} must be a list of numbers, but got {value!r}")
    return [finite(op, name, entry) for entry in value]


positive = partial(check.integer, least=1)


def epochs(op: str, name: str, value: Any) -> list[int]:
    """A list of integers of at least 0, from any iterable."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{op}: {name} must be a list of integers, but got {value!r}")
    return [check.integer(op, name, entry, least=0) for entry in value]


class LRScheduler:
    """The base of all schedules: `step()` sets the `lr` of each of the optimizer's `param_groups`.

    `last_epoch` counts the calls of `step` from 0 (call it once per epoch, or once per batch), after the optimizer's
    own `step`. The rate that a group has at first is its base rate, kept in the group as `"initial_lr"`.

    With `last_epoch=n` of at least 0 a schedule is made that goes on at epoch n + 1. It expects groups with
    `"initial_lr"` and the rates of that epoch. `load_state_dict` does it more easily: make optimizer and schedule, and
    then load the states of both, since a new schedule sets rates.

    A subclass defines `get_lr`, which returns the rates of all groups at `last_epoch`. Its `options` map the names of
    the attributes that belong to its state to their checks.

    Raises TypeError if `optimizer` is no Optimizer or an option is no number, and ValueError if `last_epoch` is less
    than -1, a group has no `"initial_lr"` to go on from, or a rate becomes negative or not finite: then nothing has
    changed. Assigned options are checked as in the constructor.
    """

    options: ClassVar[dict[str, Check]] = {  # what `state_dict` holds: name -> its check
        "last_epoch": partial(check.integer, least=-1),
        "base_lrs": numbers,
        "_last_lr": numbers,
    }
    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[float]
    _last_lr: list[float]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        self.optimizer = check.instance(name, "optimizer", optimizer, Optimizer)
        self.last_epoch = last_epoch
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch > -1 and "initial_lr" not in group:
                raise ValueError(
                    f"{name}: with last_epoch each group must have an initial_lr, but got group {i} without one"
                )
        self.base_lrs = []
        self._add_groups()
        self._start()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.options:
            value = self.options[name](type(self).__name__, name, value)
        super().__setattr__(name, value)

    def get_lr(self) -> list[float]:
        """The rates of all groups at `last_epoch`. It sets nothing; `get_last_lr` returns the rates in use."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is not defined")

    def get_last_lr(self) -> list[float]:
        """The rates of all groups as the last `step` set them."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go on to the next epoch and set its rates; if they are refused, nothing has changed."""
        refuse(type(self).__name__, "a step of a schedule")
        before = [(vars(part), {**vars(part)}) for part in self._parts()]
        before += [(group, {**group}) for group in self.optimizer.param_groups]
        try:
            self._move(self.last_epoch + 1)
        except BaseException:
            for now, kept in before:
                now.clear()
                now.update(kept)
            raise

    def _parts(self) -> list[LRScheduler]:
        """This schedule, and those that it is made of."""
        return [self]

    def state_dict(self) -> dict[str, Any]:
        """The options, `last_epoch`, the base rates and the last rates, as plain data."""
        self._add_groups()
        state = {name: getattr(self, name) for name in self.options}
        return {name: list(value) if isinstance(value, list) else value for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned; its options replace those of the constructor.

        The rates belong to the optimizer and are not set: load the optimizer's state, too.

        Raises, before anything is changed, TypeError if `state` is not a mapping, and ValueError if its entries are not
        those of this schedule or have wrong values.
        """
        self._load(self._read(state))

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The checked entries of a state."""
        name = type(self).__name__
        check.instance(name, "state", state, Mapping)
        if state.keys() != self.options.keys():
            names, given = ", ".join(self.options), ", ".join(map(str, state))
            raise ValueError(f"{name}: the state must have the entries {names}, but got {given}")
        read = {key: verify(name, key, state[key]) for key, verify in self.options.items()}
        for key, verify in self.options.items():
            if verify is numbers and key != "_last_lr":  # that may be older than a group
                self._match(key, read[key])
        return read

    def _load(self, read: dict[str, Any]) -> None:
        """Set the entries that `_read` returned."""
        vars(self).update(read)

    def _start(self) -> None:
        """Set the rates of the first epoch, or of the one after `last_epoch`."""
        self._move(self.last_epoch + 1)

    def _restart(self) -> None:
        """Begin at epoch 0 from the base rates."""
        self._add_groups()
        self._set([*self.base_lrs])
        self._move(0)

    def _move(self, epoch: int) -> None:
        """Go to `epoch` and set its rates."""
        self.last_epoch = epoch
        self._add_groups()
        self._set(self.get_lr())

    def _set(self, rates: Sequence[float]) -> None:
        self._last_lr = [finite(type(self).__name__, "lr", rate) for rate in rates]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def _rates(self) -> list[float]:
        """The rates that the groups have now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _add_groups(self) -> None:
        """Take the rates of groups that are new as their base rates; refuse to go on if one has gone."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            group.setdefault("initial_lr", group["lr"])
            self.base_lrs = [*self.base_lrs, group["initial_lr"]]
        self._match("base_lrs", self.base_lrs)

    def _match(self, name: str, values: list[T]) -> list[T]:
        """Require one value for each group."""
        count = len(self.optimizer.param_groups)
        if len(values) != count:
            raise ValueError(
                f"{type(self).__name__}: {name} must have one entry for each of {count} groups, but got {len(values)}"
            )
        return values

    def _for_groups(self, name: str, value: Any) -> list[float]:
        """A number for all groups, or a list or tuple with one for each."""
        if isinstance(value, (list, tuple)):
            return self._match(name, numbers(type(self).__name__, name, value))
        return [finite(type(self).__name__, name, value)] * len(self.optimizer.param_groups)


class RecursiveScheduler(LRScheduler):
    """A schedule whose rates follow from those of the epoch before, as the groups have them.

    So a rate that was changed in between, or by another schedule, carries over. A subclass defines `_next_lr`.
    """

    def get_lr(self) -> list[float]:
        return [self._next_lr(rate, base) for rate, base in zip(self._rates(), self.base_lrs, strict=True)]

    def _next_lr(self, lr: float, base_lr: float) -> float:
        """The rate of a group at `last_epoch`, where `lr` is its rate before."""
        raise NotImplementedError(f"{type(self).__name__}: _next_lr is not defined")

    def _start(self) -> None:
        if self.last_epoch == -1:
            self._move(0)
        else:  # the groups have the rates of this epoch
            self.last_epoch += 1
            self._last_lr = self._rates()
