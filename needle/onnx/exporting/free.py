"""A batch size left free: outlines at several sizes, and what of their ops and shapes depends on it.

A size that differs is taken for `factor · n + offset`; two outlines find both numbers, a third one must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from needle.graph import Op, Spec
from needle.onnx.exporting.outline import Outline, Step

__all__ = ["Free", "Size", "Spread", "merged"]


@dataclass(frozen=True)
class Free:
    """A size of factor · n + offset, for the batch size n."""

    factor: int
    offset: int


Size: TypeAlias = int | Free


@dataclass(frozen=True)
class Spread:
    """A constant array to be repeated up to a shape."""

    array: Any
    shape: tuple[Size, ...]
    dtype: Any


def merged(outlines: Sequence[Outline], sizes: Sequence[int]) -> Outline:
    """One outline of several at these batch sizes, in which `Free` stands for the sizes that follow them.

    Raises ValueError if they differ in anything else.
    """
    first = outlines[0]
    forms = [[(n, type(step.op), step.inputs) for n, step in outline.steps.items()] for outline in outlines]
    ends = [(outline.outputs, list(outline.state), list(outline.constants)) for outline in outlines]
    if any(form != forms[0] for form in forms) or any(end != ends[0] for end in ends):
        raise _refusal("which ops it applies")

    def every(kind: str, number: int) -> list[Any]:
        return [getattr(outline, kind)[number] for outline in outlines]

    def specs(number: int) -> list[Any]:
        return [spec for _, spec in every("inputs", number)]

    return replace(
        first,
        inputs={n: (name, _merged(specs(n), sizes, name)) for n, (name, _) in first.inputs.items()},
        constants={n: _merged_constant(every("constants", n), sizes) for n in first.constants},
        steps={n: _merged_step(every("steps", n), sizes) for n in first.steps},
    )


def _merged_step(steps: Sequence[Step], sizes: Sequence[int]) -> Step:
    op: Op = object.__new__(type(steps[0].op))
    where = type(op).__name__
    for name in vars(steps[0].op):
        vars(op)[name] = _merged([vars(step.op)[name] for step in steps], sizes, where)
    return replace(steps[0], op=op, spec=_merged([step.spec for step in steps], sizes, where))


def _merged(values: Sequence[Any], sizes: Sequence[int], where: str) -> Any:
    """The common value; of sizes that differ, their rule."""
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    if all(type(value) is int for value in values):
        factor, rest = divmod(values[1] - values[0], sizes[1] - sizes[0])
        found = Free(factor, values[0] - factor * sizes[0])
        if not rest and all(found.factor * n + found.offset == value for n, value in zip(sizes, values, strict=True)):
            return found
    elif all(isinstance(value, (tuple, list)) and len(value) == len(first) for value in values):
        entries = [_merged(group, sizes, where) for group in zip(*values, strict=True)]
        return Spec(*entries) if isinstance(first, Spec) else tuple(entries)
    elif all(isinstance(value, slice) for value in values):
        ends = zip(*((value.start, value.stop, value.step) for value in values), strict=True)
        return slice(*(_merged(group, sizes, where) for group in ends))
    raise _refusal(f"{where}: {first!r} for {sizes[0]} items, {values[1]!r} for {sizes[1]}")


def _merged_constant(arrays: Sequence[Any], sizes: Sequence[int]) -> Any:
    """A constant array; along axes that follow the batch size, one slice and how often it is repeated."""
    shape = _merged([array.shape for array in arrays], sizes, "the shape of a constant")
    rows = []
    for array in arrays:
        row = array[tuple(slice(0, 1) if isinstance(size, Free) else slice(None) for size in shape)]
        rows.append(row if row.shape == array.shape or (row == array).all() else None)
    first = rows[0]
    if first is None or any(row is None or row.tobytes() != first.tobytes() for row in rows):
        raise _refusal(f"the values of a constant of shape {arrays[0].shape}")
    return first if first.shape == shape else Spread(first, shape, first.dtype)


def _refusal(what: str) -> ValueError:
    return ValueError(f"export: with batch_axis, the model must be the same for all batch sizes, but it changes {what}")
