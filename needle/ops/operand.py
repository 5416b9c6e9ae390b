"""Operands: what a user may hand to an op, turned into tensors whose shapes fit."""

from __future__ import annotations

import numbers
from functools import lru_cache
from typing import Any

from needle.autograd import Tensor
from needle.backend import cpu
from needle.grad_mode import mode

PLAIN = (float, int)  # looked at first: the check of an abstract class takes a third of a microsecond


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy."""
    return type(value) in PLAIN or isinstance(value, numbers.Real)


def number(op: str, value: Any) -> Any:
    """A number, or a host array of one element, as a Python number: it never promotes an array that it meets."""
    if type(value) in PLAIN:
        return value
    if not is_number(value):
        if type(value) is not cpu().array_type() or value.size != 1 or value.dtype.kind not in "fiub":
            raise TypeError(f"{op}: scalar must be a number, but got {type(value).__name__}")
        value = value.item()
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, (int, float)) else float(value)


def tensor(op: str, value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor: itself, or a constant; Python numbers take the dtype of `like` where they can."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError(f"{op}: operands must be tensors, arrays or numbers, but got {type(value).__name__}")
    device = dtype = None
    if like is not None:
        device = like.device
        if is_number(value):
            value = number(op, value)
            dtype = like.dtype if _holds(like.dtype, value) else None
            if dtype is not None and (dtype.kind == "f" or 0 <= value < 128):  # fits without a look; no transfer
                return Tensor.make_const(device.xp.full((), value, dtype))
    try:
        return Tensor(value, device=device, dtype=dtype, requires_grad=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{op}: operands must be tensors, arrays or numbers, but got {type(value).__name__}") from error


def _holds(dtype: Any, value: Any) -> bool:
    """Whether a Python number is of a kind that `dtype` can hold: bools, integers and floats in this order."""
    return dtype.kind == "f" or (not isinstance(value, float) and (dtype.kind != "b" or isinstance(value, bool)))


def pair(op: str, a: Any, b: Any, *, broadcast: bool = True) -> tuple[Tensor, Tensor]:
    """Two operands as tensors, of shapes that broadcast unless the op has a rule of its own."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        a = tensor(op, a, b if isinstance(b, Tensor) else None)
        b = tensor(op, b, a)
    if broadcast and a.spec.shape != b.spec.shape:
        broadcast_shape(op, a.shape, b.shape)
    return a, b


def constant(x: Tensor) -> Tensor:
    """x for the graph of a gradient that does not flow back into x; where no graph is recorded, x itself will do."""
    return x.detach() if mode.recording else x


@lru_cache
def broadcast_shape(op: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all of `shapes` broadcast by NumPy's rules."""
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        size = max(sizes) if 0 not in sizes else 0
        if any(n not in (1, size) for n in sizes):
            raise ValueError(f"{op}: shapes must broadcast, but got {' and '.join(map(str, shapes))}")
        result.append(size)
    return tuple(result)


# ---- indices, ranges, shapes and dtypes of operands ------------------------------------------------------------------


def as_indices(op: str, name: str, x: Tensor) -> Tensor:
    """The values of `x`, of any integer or floating dtype, as an int64 constant.

    Fractions, infinities and NaN are refused on the CPU only: elsewhere reading values would wait for the device.
    """
    array = x.array
    kind = array.dtype.kind
    if kind == "b":
        raise TypeError(f"{op}: {name} must be integers, but got dtype bool")
    if kind == "f" and x.device == cpu():
        is_integer = x.device.xp.isfinite(array) & (x.device.xp.floor(array) == array)
        if not is_integer.all():
            raise ValueError(f"{op}: {name} must be integers, but got {array[~is_integer].flat[0]}")
    return Tensor.make_const(array.astype("int64"))


def all_in_range(indices: Tensor, size: int) -> bool:
    """Whether all int64 indices lie in [0, size). Reading them waits for the device."""
    array = indices.array.view("uint64")  # negative indices become large ones
    return not array.size or bool(array.max() < size)


def without_index(indices: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """The int64 indices with 0 in place of `ignored`, and a mask of the others; computed at once in LAZY_MODE too."""
    array = indices.array
    kept = array != ignored
    return Tensor.make_const(array * kept), Tensor.make_const(kept)


def check_range(op: str, name: str, x: Tensor, low: float, high: float) -> None:
    """Refuse values outside [low, high], and NaN, on the CPU only: elsewhere reading them would wait for the device."""
    if x.device == cpu() and x.size:
        least, most = x.array.min(), x.array.max()
        if not (low <= least and most <= high):
            raise ValueError(f"{op}: {name} must lie in [{low}, {high}], but got {least} to {most}")


def check_broadcast(op: str, name: str, x: Tensor, target: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not broadcast to `shape`, the shape of what the message calls `target`."""
    if len(x.shape) > len(shape) or broadcast_shape(op, x.shape, shape) != shape:
        raise ValueError(f"{op}: {name} must broadcast to the {target} {shape}, but got shape {x.shape}")


def compute_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for float16, whose sums lose digits and whose squares overflow from 256 on."""
    return "float32" if dtype == "float16" else dtype
