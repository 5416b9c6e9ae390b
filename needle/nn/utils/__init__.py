"""What torch keeps in `torch.nn.utils`: gradients clipped by norm and by value."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.nn.utils.clip_grad import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
