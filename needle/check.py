"""Argument rules: one helper per rule, one message form.

Every helper takes the name of the caller's operation first and returns the value in its canonical form. It raises
`TypeError` or `ValueError` in the form `op: rule, with the values that broke it`, before any array work.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection, Sequence
from typing import Any

__all__ = ["axes", "axis", "entries", "filling", "fits", "float_dtype", "floats", "instance", "integer"]
__all__ += ["nonzero", "number", "one_of", "same", "sizes"]

LARGEST = {2: 65504.0, 4: float.fromhex("0x1.fffffep127"), 8: math.inf}  # bytes of a floating dtype -> its maximum


def integer(op: str, name: str, value: Any, *, least: int | None = None) -> int:
    """An integer, not a bool, of at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer, but got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{op}: {name} must be at least {least}, but got {number}")
    return number


def number(
    op: str,
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """A real number in [`least`, `most`], above `above` and below `below`; NaN is refused."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} must be a number, but got {value!r}")
    real = float(value)
    if not (least <= real <= most and (real > above or above == -math.inf) and (real < below or below == math.inf)):
        low = f"({above}" if above > -math.inf else f"[{least}"
        high = f"{below})" if below < math.inf else f"{most}]"
        raise ValueError(f"{op}: {name} must lie in {low}, {high}, but got {value}")
    return real


def nonzero(op: str, name: str, value: Any) -> float:
    """A number other than 0."""
    real = number(op, name, value)
    if not real:
        raise ValueError(f"{op}: {name} must not be 0, but got {value}")
    return real


def sizes(op: str, name: str, value: Any, rank: int, *, least: int | None = 0) -> tuple[int, ...]:
    """One integer for all `rank` axes, or a sequence of `rank`: a tuple of `rank` integers of at least `least`."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if len(value) != rank:
            raise ValueError(f"{op}: {name} must be one integer or {rank}, but got {len(value)}: {tuple(value)}")
        return tuple(integer(op, name, entry, least=least) for entry in value)
    return (integer(op, name, value, least=least),) * rank


def axes(op: str, value: Any, ndim: int, name: str = "axis") -> tuple[int, ...]:
    """An axis, a sequence of distinct axes, or None for all: a tuple of axes in [0, `ndim`)."""
    if value is None:
        return tuple(range(ndim))
    entries = tuple(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
    result = tuple(axis(op, entry, ndim, name) for entry in entries)
    if len(set(result)) < len(result):
        raise ValueError(f"{op}: axes must differ, but got {entries} for {ndim} dimensions")
    return result


def reduced_axes(op: str, value: Any, ndim: int, keepdims: bool = False, name: str = "axis") -> tuple[int, ...]:
    """`axes`, but without axes the entries 0 and -1 are allowed, as in torch: a reduction over the only element.

    `keepdims` must be a bool: x.sum(0, 1) does not name two axes.
    """
    if keepdims is not True and keepdims is not False:
        instance(op, "keepdims", keepdims, bool)
    if value is None:
        return tuple(range(ndim))
    return axes(op, value, ndim, name) if ndim else axes(op, value, 1, name)[:0]


def axis(op: str, value: Any, ndim: int, name: str = "axis") -> int:
    """One axis of `ndim`, counted from the end if negative: an integer in [0, `ndim`)."""
    index = integer(op, name, value)
    if not -ndim <= index < ndim:
        raise ValueError(f"{op}: {name} must lie in [{-ndim}, {ndim - 1}], but got {index}")
    return index % ndim


def one_of(op: str, name: str, value: Any, choices: Collection[Any]) -> Any:
    """One of `choices`."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, but got {value!r}")
    return value


def fits(op: str, name: str, value: float, dtype: Any, most: float | None = None) -> None:
    """Require a number, or the range from it to `most`, to fit a dtype of integers; other dtypes hold all."""
    if dtype.kind not in "iu":
        return
    most = value if most is None else most
    low, high = bounds(dtype)
    if not (low <= value <= high and low <= most <= high):
        got = f"{value} to {most}" if value < most else value
        raise ValueError(f"{op}: {name} must lie in [{low}, {high}], the range of {dtype}, but got {got}")


def filling(op: str, name: str, value: float, dtype: Any, most: float | None = None) -> None:
    """`fits` for numbers that are written: floats must hold them, too, though arithmetic with them may be right."""
    fits(op, name, value, dtype, most)
    limit = LARGEST[dtype.itemsize] if dtype.kind == "f" else math.inf
    for written in (value, value if most is None else most):
        if limit < abs(written) < math.inf:
            raise ValueError(f"{op}: {name} must lie in [{-limit}, {limit}], the range of {dtype}, but got {written}")


def holds(dtype: Any, value: float) -> bool:
    """Whether a number lies in the range of a dtype of integers; others hold all."""
    if dtype.kind not in "iu":
        return True
    low, high = bounds(dtype)
    return low <= value <= high


def bounds(dtype: Any) -> tuple[int, int]:
    """The least and the largest integer of a dtype of integers."""
    values = 2 ** (8 * int(dtype.itemsize))
    return (-(values // 2), values // 2 - 1) if dtype.kind == "i" else (0, values - 1)


def instance(op: str, name: str, value: Any, kind: type) -> Any:
    """An instance of `kind`."""
    if not isinstance(value, kind):
        given = type(value).__name__
        if given == kind.__name__:  # NumPy has a bool, and torch has a Tensor
            given = f"{type(value).__module__}.{given}"
        raise TypeError(f"{op}: {name} must be a {kind.__name__}, but got {given}")
    return value


def entries(op: str, name: str, value: Any, keys: Collection[str]) -> dict[str, Any]:
    """A dict with these keys and no others."""
    given: dict[str, Any] = instance(op, name, value, dict)
    if given.keys() != set(keys):
        raise ValueError(f"{op}: {name} must hold {_listed(keys)}, but got {_listed(given)}")
    return given


def _listed(keys: Collection[Any]) -> str:
    return ", ".join(map(str, keys)) or "nothing"


def same(op: str, what: str, first: Any, second: Any, names: tuple[str, str]) -> None:
    """Require two properties to agree: `what` of the arguments called `names`."""
    if first != second:
        raise ValueError(f"{op}: {names[0]} and {names[1]} must agree in {what}, but got {first} and {second}")


def float_dtype(op: str, dtype: Any) -> Any:
    """A floating dtype."""
    if dtype.kind != "f":
        raise TypeError(f"{op}: dtype must be a floating one, but got {dtype}")
    return dtype


def floats(op: str, **tensors: Any) -> None:
    """Require the tensors (or arrays with `dtype` and `device`) to have one floating dtype and lie on one device."""
    values = list(tensors.values())
    dtype, device = values[0].dtype, values[0].device
    is_right = dtype.kind == "f"
    for value in values[1:]:
        place = value.device
        if place is not device and place != device:
            places = " and ".join(str(t.device) for t in values)
            raise TypeError(f"{op}: {' and '.join(tensors)} must be on one device, but got {places}")
        is_right = is_right and value.dtype == dtype
    if not is_right:
        rule = "one floating dtype" if len(values) > 1 else "a floating dtype"
        dtypes = " and ".join(str(t.dtype) for t in values)
        hint = '; .astype("float32") converts' if {str(t.dtype) for t in values} == {"float32", "float64"} else ""
        raise TypeError(f"{op}: {' and '.join(tensors)} must have {rule}, but got {dtypes}{hint}")
