"""Training by several workers, each of which computes a part of every batch."""

from typing import TYPE_CHECKING

from needle.distributed.gradients import *
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
