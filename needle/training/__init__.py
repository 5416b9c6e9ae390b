"""Training: the loop, its callbacks, and all that a run needs to go on after it was stopped."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
