"""Files of a run: states that are saved and loaded, and files that are written whole or not at all."""

from typing import TYPE_CHECKING

from needle.checkpoint.atomic import remove_leftovers as remove_leftovers
from needle.checkpoint.atomic import write_atomically as write_atomically
from needle.checkpoint.files import load as load
from needle.checkpoint.files import save as save
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
