"""Indices as raw arrays: whole numbers of any dtype, in a range."""

from __future__ import annotations

from needle.backend.device import Array, device_of, xp
from needle.backend.registry import cpu

__all__ = ["check_array_range", "index_array"]


def index_array(op: str, name: str, array: Array, size: int | None = None) -> Array:
    """The values of an array of any integer or floating dtype, in [0, size) unless `size` is None, as int64.

    Values are checked on the CPU only: elsewhere reading them would wait for the device. Raises `TypeError` for bools,
    `ValueError` for values that are no indices.
    """
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind not in "fiu":
        raise TypeError(f"{op}: {name} must be integers, but got dtype {array.dtype}")
    if device_of(array) == cpu() and array.size:
        if kind == "f" or (kind, bits) == ("u", 64):
            wide = array.astype("float64")
            is_index = (abs(wide) < 2.0**63) & (xp(array).floor(wide) == wide)
            if not is_index.all():
                raise ValueError(f"{op}: {name} must be integers, but got {array[~is_index].flat[0]}")
        if size is not None:
            check_array_range(op, name, array, 0, size - 1)
    return array.astype("int64")


def check_array_range(op: str, name: str, array: Array, low: float, high: float) -> None:
    """Refuse values outside [low, high], and NaN, on the CPU only: elsewhere reading them would wait for the device."""
    if device_of(array) == cpu() and array.size:
        least, most = array.min(), array.max()
        if not (low <= least and most <= high):
            raise ValueError(f"{op}: {name} must lie in [{low}, {high}], but got {least} to {most}")
