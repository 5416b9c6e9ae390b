"""Nested tuples, lists and mappings of arrays, as batches and the outputs of models are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__: list[str] = []


def leaves(value: Any) -> Iterator[Any]:
    """All that is in nested tuples, lists and mappings, in order."""
    if isinstance(value, (tuple, list, Mapping)):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(entry)
    else:
        yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with `function` of each leaf. Named tuples keep their class; mappings become dicts."""
    if isinstance(value, Mapping):
        return {name: mapped(function, entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        entries = [mapped(function, entry) for entry in value]
        if hasattr(value, "_fields"):
            return type(value)(*entries)
        return entries if isinstance(value, list) else tuple(entries)
    return function(value)
