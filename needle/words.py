"""Other words for the arguments of functions: torch's `dim` and `keepdim` and NumPy's `axis`, beside the course's.

A function that takes them ends in `**words`, which is empty for a call by position or in the function's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, TypeVar

__all__ = ["Axes", "AxesWords", "AxisWords", "BoundWords", "DeviationWords"]
__all__ += ["IndexWords", "RangeWords", "ReductionWords", "respelled"]

Axes: TypeAlias = int | Sequence[int] | None  # an axis, several, or None for all
T = TypeVar("T")


class AxisWords(TypedDict, total=False):
    """Words for `axis`."""

    dim: int


class AxesWords(TypedDict, total=False):
    """Words for `axes`."""

    axis: Axes
    dim: Axes
    dims: Axes


class ReductionWords(AxesWords, total=False):
    """Words for `axes` and `keepdims`. NumPy's functions pass `dtype` and `out`, which must be None."""

    keepdim: bool
    dtype: None
    out: None


class DeviationWords(ReductionWords, total=False):
    """Words for `axes`, `keepdims` and `correction`."""

    ddof: float


class IndexWords(TypedDict, total=False):
    """Words for `axis`, which may be None, and `keepdims`."""

    dim: int | None
    keepdim: bool
    out: None


class BoundWords(TypedDict, total=False):
    """Words for `low` and `high`."""

    min: float | None
    max: float | None


class RangeWords(TypedDict, total=False):
    """Torch's words for `stop`, `num` and `shape`, each where a function has that argument."""

    end: float
    steps: int
    size: int | Sequence[int]


OWN_NAMES = {  # word -> what functions call it
    **dict.fromkeys(("axis", "axes", "dim", "dims"), ("axes", "axis")),
    "keepdim": ("keepdims",), "ddof": ("correction",), "min": ("low",), "max": ("high",),
    "end": ("stop",), "steps": ("num",), "size": ("shape",),
}


def respelled(function: Callable[..., T], words: Mapping[str, Any], x: Any, **given: Any) -> T:
    """`function(x, …)` with its other arguments, as `given` so far, and the values of `words` under its own names.

    Raises `TypeError` for a word that the function does not know, and for two words for one argument.
    """
    op, code, values = function.__name__, function.__code__, function.__defaults__ or ()
    defaults = dict(zip(code.co_varnames[code.co_argcount - len(values) : code.co_argcount], values, strict=True))
    defaults |= function.__kwdefaults__ or {}
    for word, value in words.items():
        if value is None and word in ("dtype", "out") and "keepdims" in given:
            continue
        name = next((name for name in OWN_NAMES.get(word, ()) if name in given), None)
        if name is None:
            known = dict.fromkeys([*given, *(word for word, names in OWN_NAMES.items() if given.keys() & {*names})])
            raise TypeError(f"{op}: arguments must be among {', '.join(known)}, but got {word}={value!r}")
        if given[name] is not defaults.get(name):
            raise TypeError(f"{op}: {name} must be given once, but got {given[name]!r} and {word}={value!r}")
        given[name] = value
    return function(x, **given)
