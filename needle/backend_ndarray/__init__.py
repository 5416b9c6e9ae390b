"""The course's module of strided arrays, on the devices of `needle.backend`."""

from typing import TYPE_CHECKING

from needle.backend_ndarray.buffer import *
from needle.backend_ndarray.creation import *
from needle.backend_ndarray.device import *
from needle.backend_ndarray.ndarray import *
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
