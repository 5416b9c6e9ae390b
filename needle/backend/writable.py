"""The memory of a raw array: which it is, and whether it may be written to."""

from __future__ import annotations

from needle.backend.device import Array

__all__ = ["check_writable", "is_writable", "root_of"]


def root_of(array: Array) -> Array:
    """The object that owns the memory of an array: the last of its bases."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array


def is_writable(array: Array) -> bool:
    """Whether memory is neither read-only nor repeated: of several elements in one place, the last write would stay."""
    flags = array.flags
    if not (flags.c_contiguous or flags.f_contiguous) and array.size:  # contiguous, the usual case, repeats nothing
        reach = array.itemsize  # bytes from the first to the last element along the axes of smaller steps
        for step, n in sorted((abs(step), n) for n, step in zip(array.shape, array.strides, strict=True) if n > 1):
            if step < reach:
                return False
            reach += (n - 1) * step
    return getattr(flags, "writeable", True)  # CuPy's arrays always are writable


def check_writable(op: str, name: str, array: Array) -> None:
    """Require writable memory; `name` says whose."""
    if not is_writable(array):
        raise ValueError(
            f"{op}: {name} must have writable memory, but got a read-only or repeated array of shape {array.shape}, as "
            "broadcasting makes it; copy it first"
        )
