"""Rules of optimizers on many arrays: chunks that stay in cache and that threads share, or one kernel of a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from needle import tuning
from needle.backend import device_of, overridable, xp
from needle.kernels.layout import Array

__all__ = ["Rule", "Settings", "Update", "update_each"]

Update: TypeAlias = tuple[Array, ...]  # arrays of the same shape: what is updated, what by (a gradient), and its state
Settings: TypeAlias = Any  # what a rule takes beside arrays: numbers, or an array (K,) of them


class Rule(NamedTuple):
    """What is done to each element alone, so that it may be done to any grouping of elements."""

    apply: Callable[[Array, Array, Sequence[Array], Array, Any, Settings], None]  # (…, scratch, options, settings)
    kernel: str | None = None  # the name of what computes the same in one launch, on devices that have it
    state: tuple[str, ...] = ()  # the names of the state arrays
    options: Mapping[str, Any] = {}  # what decides between rules


@overridable
def update_each(first: Array, updates: Sequence[Update], rule: Rule, settings: Settings) -> None:
    """Apply a rule to all `updates`, arrays of the device and dtype of `first`.

    Chunk by chunk, with scratch memory, and in parallel if there are many elements.
    """
    if hasattr(settings, "dtype"):  # a cell, which each replay of a recording fills
        settings = tuple(settings[i, ...] for i in range(len(settings)))

    def apply(update: Update) -> None:
        array, grad, *state = update
        rule.apply(array, grad, state, xp(array).empty_like(array), rule.options, settings)

    if sum([update[0].size for update in updates]) < tuning.PARALLEL_STEP_ELEMENTS:
        for update in updates:
            apply(update)
        return
    device = device_of(first)
    size = tuning.STEP_CHUNK_ELEMENTS * device.chunk_scale
    device.parallel_for(apply, [chunk for update in updates for chunk in _split(update, size)])


def _split(arrays: Update, size: int) -> list[Update]:
    """Cut arrays of one shape along the first axis into chunks of about `size` elements; flatten compact ones first."""
    if arrays[0].size <= size:
        return [arrays]
    if all(array.flags.c_contiguous for array in arrays):
        arrays = tuple(array.reshape(-1) for array in arrays)
    length = arrays[0].shape[0]
    rows = max(1, size * length // arrays[0].size)
    return [tuple(array[start : start + rows] for array in arrays) for start in range(0, length, rows)]
