"""The memory side of a step: state arrays, and small parameters gathered into flat arrays.

The rule of an optimizer is elementwise, so it may run on any grouping of elements. A NumPy call costs about a
microsecond even for a tiny array, so the rule runs once for all small parameters. Devices with a kernel for the rule
need no flat arrays: it takes all parameters as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

from needle import tuning
from needle.autograd import Tensor
from needle.backend import check_writable, device_of, kept, refuse, xp
from needle.kernels import Rule, Update
from needle.optim.groups import is_same

__all__ = ["Cohort", "Fills", "Numbers", "Operands", "Pool", "State", "may_share_memory"]

Array: TypeAlias = Any
Fills: TypeAlias = Mapping[str, float]  # the name of a state array -> the number that fills it at first
Numbers: TypeAlias = dict[str, float]  # numbers that a rule keeps per parameter, such as the count of its steps
Operands: TypeAlias = dict[Tensor, tuple[Array, Array]]  # a parameter -> the arrays of it and of its gradient

NEW_STATE = "a state that an optimizer has only just got"  # each replay would make it again


class Cohort:
    """Parameters of one group that had a gradient in the same steps, the numbers of those, and pools of the small ones.

    Pools are made when they are asked for. Copied or unpickled pools are made again: copies of views share no memory.
    """

    def __init__(self, params: Iterable[Tensor], numbers: Numbers | None = None) -> None:
        self.params, self.numbers = frozenset(params), {**(numbers or {})}
        self.pools: list[Pool] | None = None
        self.unpooled: list[Tensor] = []  # the parameters outside the pools
        self.names: tuple[str, ...] = ()  # of the state arrays in the pools
        self.fits = True  # whether the pools are known to fit the data of their parameters

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pools": None}

    def part(self, operands: Operands) -> Operands:
        """The operands of this cohort's parameters, in their order."""
        if len(operands) == len(self.params):
            return operands
        return {parameter: pair for parameter, pair in operands.items() if parameter in self.params}


class State:
    """The state of an optimizer: named arrays and numbers per parameter, the arrays on the device of the parameter."""

    def __init__(self) -> None:
        self.arrays: dict[Tensor, dict[str, Array]] = {}
        self.cohorts: list[Cohort] = []
        self.checked: list[Array] = []  # the parameters' arrays that `is_aliased` looked at last, and its answer
        self.overlap = False

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"checked": []}

    def is_aliased(self, arrays: list[Array]) -> bool:
        """Whether two parameters may share memory; compared again only if an array is another than in the last step.

        Raises ValueError if a parameter cannot be written to, or holds an element of its memory more than once.
        """
        if not is_same(arrays, self.checked):
            for array in arrays:
                check_writable("step", "each parameter", array)
            self.checked, self.overlap = arrays, may_share_memory(arrays)
            for cohort in self.cohorts:
                cohort.fits = False
        return self.overlap

    def cohorts_of(self, operands: Operands) -> list[Cohort]:
        """The cohorts of the parameters of `operands`; a new one of those that take their first step.

        A cohort that other parameters belong to as well is split: from now on the numbers of the two parts differ.
        """
        for cohort in self.cohorts:
            if cohort.params == operands.keys():  # the common case first
                return [cohort]
        new, cohorts, absent = {*operands}, [], []
        for cohort in self.cohorts:
            present = cohort.params & new
            if present == cohort.params:
                cohorts.append(cohort)
            else:
                cohorts += [Cohort(present, cohort.numbers)] * bool(present)
                absent.append(Cohort(cohort.params - present, cohort.numbers) if present else cohort)
            new -= present
        if new:
            cohorts.append(Cohort(new))
        self.cohorts = cohorts + absent
        return cohorts

    def pools_of(self, cohort: Cohort, operands: Operands, fills: Fills, rule: Rule) -> list[Pool]:
        """The pools of a cohort, made again for data of another device, dtype or shape, or other state arrays."""
        if (
            cohort.pools is None
            or cohort.names != (*fills,)
            or not (cohort.fits or all(pool.fits(operands) for pool in cohort.pools))
        ):
            cohort.pools, cohort.names = self._make_pools(operands, fills, rule), (*fills,)
            pooled = {parameter for pool in cohort.pools for parameter in pool.views}
            cohort.unpooled = [parameter for parameter in operands if parameter not in pooled]
        cohort.fits = True
        return cohort.pools

    def updates_of(self, params: Iterable[Tensor], operands: Operands, fills: Fills) -> list[Update]:
        """The arrays for the rule, for each of `params` alone."""
        updates = []
        for parameter in params:
            arrays = self.arrays_of(parameter, operands[parameter][0], fills)
            updates.append((*operands[parameter], *[kept(arrays[name]) for name in fills]))
        return updates

    def _make_pools(self, operands: Operands, fills: Fills, rule: Rule) -> list[Pool]:
        """One pool per device and dtype, if it has enough small parameters and no kernel for the rule.

        The state moves there.
        """
        alike: dict[Any, list[Tensor]] = {}
        for parameter, (array, _) in operands.items():
            if array.size < tuning.POOLED_ELEMENTS and not has_kernel(rule, array):
                alike.setdefault((device_of(array), array.dtype), []).append(parameter)
        pools = []
        for params in alike.values():
            if len(params) >= tuning.POOLED_PARAMETERS:
                if fills:
                    refuse("step", NEW_STATE)
                pool = Pool({parameter: operands[parameter][0] for parameter in params}, len(fills))
                for parameter, (_, _, *views) in pool.views.items():
                    arrays = self.arrays_of(parameter, operands[parameter][0], fills)
                    for name, view in zip(fills, views, strict=True):
                        view[...] = arrays[name]
                        arrays[name] = view
                pools.append(pool)
        return pools

    def arrays_of(self, parameter: Tensor, array: Array, fills: Fills) -> dict[str, Array]:
        """The state of a parameter, all that `fills` names, on the device of its data, `array`, in its dtype and shape.

        Arrays that an option asks for no longer stay as they are.
        """
        arrays = self.arrays.get(parameter, {})
        if not fills.keys() <= arrays.keys():
            refuse("step", NEW_STATE)
            new = {name: xp(array).full_like(array, fill) for name, fill in fills.items() if name not in arrays}
            arrays = {**arrays, **new}
        first, device = next(iter(arrays.values()), array), device_of(array)
        if device_of(first) != device:  # the parameter has moved to another device
            arrays = {name: device.array(kept) for name, kept in arrays.items()}
        if first.dtype != array.dtype:  # its module was cast
            arrays = {name: kept.astype(array.dtype) for name, kept in arrays.items()}
        if first.shape != array.shape:  # axes of size 1 came or went
            arrays = {name: kept.reshape(array.shape) for name, kept in arrays.items()}
        self.arrays[parameter] = arrays
        return arrays


class Pool:
    """Small parameters of one dtype on one device as flat arrays, so that the rule runs once for all of them.

    `flat` are arrays (total size,): parameters, gradients, and each state array. `views` maps a parameter to its part
    of each, in the parameter's shape. Each step copies parameters and gradients; the state stays here.
    """

    def __init__(self, arrays: dict[Tensor, Array], state_count: int) -> None:
        first, size = next(iter(arrays.values())), sum(array.size for array in arrays.values())
        self.flat = tuple(xp(first).zeros(size, first.dtype) for _ in range(2 + state_count))
        self.views: dict[Tensor, list[Array]] = {}
        start = 0
        for parameter, array in arrays.items():
            end = start + array.size
            self.views[parameter] = [flat[start:end].reshape(array.shape) for flat in self.flat]
            start = end

    def fits(self, operands: Operands) -> bool:
        """Whether all parameters are on the pool's device and have the shape and dtype of their views."""
        device, dtype = device_of(self.flat[0]), self.flat[0].dtype
        arrays = ((operands[parameter][0], view) for parameter, (view, *_) in self.views.items())
        return all(
            device_of(array) == device and array.dtype == dtype and array.shape == view.shape for array, view in arrays
        )

    def gather(self, operands: Operands, is_recorded: bool = False) -> Update:
        """Copy parameters and gradients into the flat arrays, and return these with the state."""
        flats = tuple(map(kept, self.flat)) if is_recorded else self.flat
        for position, flat in enumerate(flats[:2]):
            xp(flat).concatenate([operands[parameter][position].reshape(-1) for parameter in self.views], out=flat)
        return flats

    def scatter(self, operands: Operands, is_recorded: bool = False) -> None:
        """Copy the flat array of parameters back into each parameter."""
        for parameter, (view, *_) in self.views.items():
            operands[parameter][0][...] = kept(view) if is_recorded else view


def has_kernel(rule: Rule, array: Array) -> bool:
    """Whether the device of an array computes the rule by a kernel that takes arrays of its dtype as they are."""
    return rule.kernel is not None and array.dtype == "float32" and "update_each" in device_of(array).kernels


def may_share_memory(arrays: Iterable[Array]) -> bool:
    """Whether two of the arrays lie in overlapping ranges of addresses."""
    ranges = sorted(map(_address_range, arrays))
    return any(start < end for (_, end), (start, _) in pairwise(ranges))


def _address_range(array: Array) -> tuple[int, int]:
    """The addresses of the first byte of an array and after its last one."""
    start = end = device_of(array).address(array)
    if array.size:
        spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        start += sum(span for span in spans if span < 0)
        end += sum(span for span in spans if span > 0) + array.itemsize
    return start, end
