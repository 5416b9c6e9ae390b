"""The memory side of a step: state arrays, small parameters gathered into flat arrays, big ones cut into chunks.

The rule of an optimizer is elementwise, so it may run on any grouping of elements. A NumPy call costs about a
microsecond even for a tiny array, so the rule runs once for all small parameters; big parameters are updated in
chunks that stay in cache and that threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import is_not
from typing import Any, TypeAlias

from needle import tuning
from needle.backend import device_of, xp

__all__ = ["Operands", "Pool", "State", "for_each_chunk", "may_share_memory"]

Array: TypeAlias = Any
Operands: TypeAlias = dict[int, tuple[Array, Array]]  # index of a parameter -> the arrays of it and of its gradient
Update: TypeAlias = tuple[Array, ...]  # arrays of the same shape: a parameter, its gradient, its state
Rule: TypeAlias = Callable[[Array, Array, Sequence[Array], Array], None]  # (parameter, gradient, state, scratch)


class State:
    """The state of an optimizer: `count` arrays per parameter, zeros at first, on the device of the parameter.

    Pools are made in the first step. A copied or unpickled state has none: its arrays are not views of flat arrays.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.arrays: dict[int, tuple[Array, ...]] = {}  # index of a parameter -> its state
        self.pools: list[Pool] | None = None
        self.checked: list[Array] = []  # the parameters' arrays that `is_aliased` looked at last, and its answer
        self.overlap = False

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pools": [], "checked": []}

    def is_aliased(self, operands: Operands) -> bool:
        """Whether two parameters may share memory; compared again only if an array is another than in the last step."""
        arrays = [array for array, _ in operands.values()]
        if len(arrays) != len(self.checked) or any(map(is_not, arrays, self.checked)):
            self.checked, self.overlap = arrays, may_share_memory(arrays)
        return self.overlap

    def pools_of(self, operands: Operands) -> list[Pool]:
        """The pools in which all parameters have a gradient and are still on the pool's device."""
        if self.pools is None:
            self.pools = self._make_pools(operands)
        return [
            pool
            for pool in self.pools
            if pool.views.keys() <= operands.keys()
            and all(device_of(operands[i][0]) == device_of(pool.flat[0]) for i in pool.views)
        ]

    def unpooled(self, operands: Operands, pools: Iterable[Pool]) -> list[Update]:
        """The arrays for the rule, for each parameter outside `pools`."""
        pooled = {i for pool in pools for i in pool.views}
        return [(*pair, *self._arrays_of(i, pair[0])) for i, pair in operands.items() if i not in pooled]

    def _make_pools(self, operands: Operands) -> list[Pool]:
        """One pool per device and dtype, if it has enough small parameters."""
        groups: dict[Any, dict[int, Array]] = {}
        for i, (array, _) in operands.items():
            if array.size < tuning.POOLED_ELEMENTS:
                groups.setdefault((device_of(array), array.dtype), {})[i] = array
        pools = [Pool(group, self.count) for group in groups.values() if len(group) >= tuning.POOLED_PARAMETERS]
        for pool in pools:
            for i, (_, _, *arrays) in pool.views.items():
                self.arrays[i] = tuple(arrays)
        return pools

    def _arrays_of(self, i: int, array: Array) -> tuple[Array, ...]:
        """The state of parameter `i` on the device of its data, `array`."""
        arrays = self.arrays.get(i)
        if arrays is None:
            arrays = self.arrays[i] = tuple(xp(array).zeros_like(array) for _ in range(self.count))
        elif arrays and device_of(arrays[0]) != device_of(array):  # the parameter has moved to another device
            arrays = self.arrays[i] = tuple(map(device_of(array).array, arrays))
            self.pools = [pool for pool in self.pools or [] if i not in pool.views]
        return arrays


class Pool:
    """Small parameters of one dtype on one device as flat arrays, so that the rule runs once for all of them.

    `flat` are arrays (total size,): parameters, gradients, and each state array. `views` maps the index of a parameter
    to its part of each, in the parameter's shape. Each step copies parameters and gradients; the state stays here.
    """

    def __init__(self, arrays: dict[int, Array], state_count: int) -> None:
        first, size = next(iter(arrays.values())), sum(array.size for array in arrays.values())
        self.flat = tuple(xp(first).zeros(size, first.dtype) for _ in range(2 + state_count))
        self.views: dict[int, list[Array]] = {}
        start = 0
        for i, array in arrays.items():
            end = start + array.size
            self.views[i] = [flat[start:end].reshape(array.shape) for flat in self.flat]
            start = end

    def gather(self, operands: Operands) -> Update:
        """Copy parameters and gradients into the flat arrays, and return these with the state."""
        for position, flat in enumerate(self.flat[:2]):
            xp(flat).concatenate([operands[i][position].reshape(-1) for i in self.views], out=flat)
        return self.flat

    def scatter(self, operands: Operands) -> None:
        """Copy the flat array of parameters back into each parameter."""
        for i, (view, *_) in self.views.items():
            operands[i][0][...] = view


def for_each_chunk(rule: Rule, updates: Sequence[Update]) -> None:
    """Call `rule` on all `updates` with scratch memory, chunk by chunk and in parallel if there are many elements."""

    def apply(update: Update) -> None:
        array, grad, *state = update
        rule(array, grad, state, xp(array).empty_like(array))

    if sum(update[0].size for update in updates) < tuning.PARALLEL_STEP_ELEMENTS:
        for update in updates:
            apply(update)
        return
    chunks: dict[Any, list[Update]] = {}
    for update in updates:
        device = device_of(update[0])
        chunks.setdefault(device, []).extend(_split(update, tuning.STEP_CHUNK_ELEMENTS * device.chunk_scale))
    for device, on_device in chunks.items():
        device.parallel_for(apply, on_device)


def _split(arrays: Update, size: int) -> list[Update]:
    """Cut arrays of one shape along the first axis into chunks of about `size` elements; flatten compact ones first."""
    if arrays[0].size <= size:
        return [arrays]
    if all(array.flags.c_contiguous for array in arrays):
        arrays = tuple(array.reshape(-1) for array in arrays)
    length = arrays[0].shape[0]
    rows = max(1, size * length // arrays[0].size)
    return [tuple(array[start : start + rows] for array in arrays) for start in range(0, length, rows)]


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
