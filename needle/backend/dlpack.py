"""Arrays of other libraries, shared through DLPack without a copy: https://dmlc.github.io/dlpack/latest/."""

from __future__ import annotations

from typing import Any

from needle.backend.device import all_devices


def to_dlpack(array: Any) -> Any:
    """The raw array, or a copy where its strides are negative (which DLPack's readers do not take)."""
    repeated = any(step == 0 and n > 1 for n, step in zip(array.shape, array.strides, strict=True))
    if repeated or not getattr(array.flags, "writeable", True):  # CuPy's arrays are all writable
        raise BufferError(
            f"DLPack: memory must be writable, but got a read-only or repeated array of shape {array.shape}, as "
            "broadcasting makes it; copy it first"
        )
    return array.copy() if any(step < 0 for step in array.strides) else array


def from_dlpack(source: Any) -> Any:
    """The memory of an array of another library as a raw array of its device."""
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: source must speak DLPack, but got {type(source).__name__}")
    kind, _ = source.__dlpack_device__()
    places = [device for device in all_devices() if device.dlpack_type == kind]
    if not places:
        raise TypeError(f"from_dlpack: source must lie on a device of needle, but got DLPack's type {kind}")
    array = places[0].xp.from_dlpack(source)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"from_dlpack: elements must be real numbers or bools, but got dtype {array.dtype}")
    return array
