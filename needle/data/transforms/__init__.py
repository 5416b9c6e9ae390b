"""Transforms of images, each of a whole batch or of one image: geometry, pixels, colors, and mixtures of a batch."""

from typing import TYPE_CHECKING

from needle.data.transforms.affine import *
from needle.data.transforms.base import *
from needle.data.transforms.color import *
from needle.data.transforms.crop import *
from needle.data.transforms.mix import *
from needle.data.transforms.pixel import *
from needle.data.transforms.resize import *
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
