"""Parameter groups: dicts of parameters with options of their own, and options as attributes of an optimizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_not
from typing import Any, Generic, TypeAlias, TypeVar, overload

from needle import check
from needle.autograd import Tensor
from needle.backend import refuse

__all__ = ["Group", "Option", "all_params", "check_groups", "check_params", "finite", "flag", "is_same", "own_group"]
__all__ += ["own_list", "two_betas"]

Group: TypeAlias = dict[str, Any]  # "params": a list of tensors; the options by name; notes

NOTES = ("name", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")  # no rule reads them

T = TypeVar("T")


class Option(Generic[T]):
    """An option of an optimizer: a value in each group. The attribute reads the first group's, and sets all groups'.

    `check(op, name, value)` returns a value in its canonical form, or raises what is wrong with it.
    """

    def __init__(self, check: Callable[..., T]) -> None:
        self.check = check

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name
        owner.options = {**getattr(owner, "options", {}), name: self.check}

    @overload
    def __get__(self, optimizer: None, kind: type) -> Option[T]: ...
    @overload
    def __get__(self, optimizer: Any, kind: type) -> T: ...
    def __get__(self, optimizer: Any, kind: type) -> Any:
        return self if optimizer is None else optimizer.param_groups[0][self.name]

    def __set__(self, optimizer: Any, value: T) -> None:
        value = self.check(type(optimizer).__name__, self.name, value)
        refuse(type(optimizer).__name__, f"an assignment to {self.name}")
        for group in optimizer.param_groups:
            optimizer._check_together(group | {self.name: value})
        for group in optimizer.param_groups:
            group[self.name] = value
        optimizer.defaults.setdefault(self.name, value)


def finite(op: str, name: str, value: Any, **bounds: float) -> float:
    """A finite number of at least 0, within the bounds of `check.number`."""
    number = check.number(op, name, value, least=0, **bounds)
    if math.isinf(number):
        raise ValueError(f"{op}: {name} must be finite, but got {value}")
    return number


def flag(op: str, name: str, value: Any) -> bool:
    """True or False."""
    return bool(check.instance(op, name, value, bool))


def two_betas(op: str, name: str, value: Any) -> tuple[float, float]:
    """A pair of decay rates in [0, 1)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{op}: {name} must be a pair of numbers, but got {value!r}")
    beta1, beta2 = (check.number(op, f"beta{i}", beta, least=0, below=1) for i, beta in enumerate(value, 1))
    return beta1, beta2


def own_list(op: str, params: Any) -> list[Any]:
    """A list of what an iterable other than a tensor yields."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"{op}: params must be a sequence of tensors, but got {type(params).__name__}")
    return list(params)


def own_group(op: str, group: Any) -> Group:
    """A copy of a group that a user made, with a list of its own; a single tensor is a list of one."""
    params = check.instance(op, "each group of params", group, dict).get("params")
    return {**group, "params": [params] if isinstance(params, Tensor) else own_list(op, params)}


def check_groups(
    op: str, groups: Sequence[Any], options: Mapping[str, Callable[..., Any]], known: Sequence[Group] = ()
) -> list[Group]:
    """Copies of the groups with all values in their canonical forms, and the same lists of parameters.

    `known` are groups that were checked before: an object in its place there is not checked again.
    """
    keys = {"params", *options, *NOTES}
    checked = []
    for position, group in enumerate(groups):
        old = known[position] if position < len(known) else {}
        params = check.instance(op, "each group of params", group, dict).get("params")
        check.instance(op, 'the "params" of a group', params, list)
        new = {}
        for key, value in group.items():
            if key not in old or value is not old[key]:
                if key not in keys:
                    choices = f"params, {', '.join(options)} or a note of schedulers"
                    raise ValueError(f"{op}: each key of a group must be one of {choices}, but got {key!r}")
                if key in options:
                    new[key] = options[key](op, key, value)
        checked.append(group | new)
    params = all_params(checked)
    if not known or not is_same(params, all_params(known)):
        check_params(op, params)
    return checked


def all_params(groups: Sequence[Group]) -> list[Any]:
    """The parameters of all groups."""
    return [parameter for group in groups for parameter in group["params"]]


def is_same(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists hold the same objects."""
    return len(first) == len(second) and not any(map(is_not, first, second))


def check_params(op: str, params: list[Any]) -> None:
    """Require different leaves of floating dtype, at least one."""
    if not params:
        raise ValueError(f"{op}: params must hold at least one tensor, but got none")
    for parameter in params:
        check.instance(op, "each of params", parameter, Tensor)
        if parameter.dtype.kind != "f":
            raise TypeError(f"{op}: params must have floating dtypes, but got {parameter.dtype}")
        if not parameter.is_leaf():  # it has no `.grad`: backward passes through it
            raise ValueError(f"{op}: params must be leaves, but got the result of {parameter.op!r}")
    twice = [parameter.shape for parameter, count in Counter(params).items() if count > 1]
    if twice:
        raise ValueError(f"{op}: params must differ, but got one of shape {twice[0]} twice")
