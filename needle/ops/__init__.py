"""Every op: its `compute` beside its `gradient`, and the function that checks arguments and applies it.

`__all__` of each file lists its functions and the op classes that the course names; other op classes are found in the
file of their subject, as `needle.ops.shape.Permute`.
"""

from needle.ops import (
    index,
    logic,
    methods,  # gives tensors their operators and methods
    norm,
    ops_logarithmic,  # the course's modules; the next one has all of arithmetic to shape
    ops_mathematic,
    ops_tuple,
    transfer,
)
from needle.ops.index import *
from needle.ops.logic import *
from needle.ops.norm import *
from needle.ops.ops_mathematic import *
from needle.ops.ops_tuple import *
from needle.ops.transfer import *

__all__: list[str] = []
__all__ += index.__all__
__all__ += logic.__all__
__all__ += norm.__all__
__all__ += ops_mathematic.__all__
__all__ += ops_tuple.__all__
__all__ += transfer.__all__
