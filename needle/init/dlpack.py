"""Tensors on the memory of other libraries' arrays."""

from __future__ import annotations

from typing import Any

from needle import backend
from needle.autograd import Tensor

__all__ = ["from_dlpack"]


def from_dlpack(source: Any) -> Tensor:
    """Wrap another library's array, of any shape and real dtype, without copying it.

    `source` implements DLPack (`__dlpack__` and `__dlpack_device__`). The result shares its memory, is on the same
    device and requires no gradient. The other library's later writes are visible here, but backward does not detect
    them.

    Raises `TypeError` if `source` does not implement DLPack or is on a device unknown to needle.
    """
    return Tensor.make_const(backend.from_dlpack(source))
