"""Every op: its `compute` beside its `gradient`, and the function that checks arguments and applies it.

`__all__` of each file lists its functions and the op classes that the course names; other op classes are in the
file of their subject, for instance `needle.ops.shape.Permute`.
"""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.ops import methods as _methods  # gives tensors their operators and methods
from needle.ops import ops_logarithmic as ops_logarithmic  # modules of the course, like the next two
from needle.ops.bits import *
from needle.ops.copies import *
from needle.ops.cumulative import *
from needle.ops.einsum import *
from needle.ops.forms import *
from needle.ops.index import *
from needle.ops.logarithms import *
from needle.ops.logic import *
from needle.ops.norm import *
from needle.ops.ops_mathematic import *
from needle.ops.ops_tuple import *
from needle.ops.order import *
from needle.ops.rounding import *
from needle.ops.scatter import *
from needle.ops.special import *
from needle.ops.statistics import *
from needle.ops.tiling import *
from needle.ops.transfer import *
from needle.ops.triangle import *
from needle.ops.trigonometry import *
from needle.ops.truth import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
