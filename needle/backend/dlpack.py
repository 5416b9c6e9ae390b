"""Arrays of other libraries, shared through DLPack without a copy: https://dmlc.github.io/dlpack/latest/."""

from __future__ import annotations

from typing import Any

from needle.backend.registry import all_devices
from needle.backend.writable import is_writable

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(array: Any) -> Any:
    """The raw array, ready for export: itself, or a copy if a stride is negative, which DLPack's readers refuse.

    Raises BufferError if the memory is read-only or repeated: a reader could write to it.
    """
    if not is_writable(array):
        raise BufferError(
            f"DLPack: memory must be writable, but got a read-only or repeated array of shape {array.shape}, as "
            "broadcasting makes it; copy it first"
        )
    return array.copy() if any(step < 0 for step in array.strides) else array


def from_dlpack(source: Any) -> Any:
    """A raw array on the memory of another library's array, on the device where that memory is.

    Raises TypeError if `source` does not implement DLPack, is on an unknown device, or has an unsupported dtype;
    BufferError if it does not export its memory, for instance because its byte order is foreign.
    """
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: source must implement DLPack, but got {type(source).__name__}")
    dlpack_type, index = source.__dlpack_device__()
    kinds = [device for device in all_devices() if device.dlpack_type == dlpack_type]
    if not kinds:
        raise TypeError(f"from_dlpack: source must lie on a device of needle, but got DLPack's type {dlpack_type}")
    device = kinds[0].peer(index)
    with device.current():
        try:
            array = device.xp.from_dlpack(source)
        except BufferError as error:
            raise BufferError(f"from_dlpack: source must export its memory, but it says: {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"from_dlpack: elements must be real numbers or bools, but got dtype {array.dtype}")
    return array
