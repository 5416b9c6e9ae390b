"""Every op: its `compute` beside its `gradient`, and the function that checks arguments and applies it.

`__all__` of each file lists its functions and the op classes that the course names; other op classes are found in the
file of their subject, as `needle.ops.shape.Permute`.
"""

from needle.ops import arithmetic, elementwise, index, joining, linalg, logic, norm, reduce, shape, transfer, tuples
from needle.ops import methods as methods  # gives tensors their operators and methods
from needle.ops import ops_logarithmic as ops_logarithmic  # a module of the course, like the two below
from needle.ops import ops_mathematic, ops_tuple
from needle.ops.arithmetic import *
from needle.ops.conv import *
from needle.ops.elementwise import *
from needle.ops.index import *
from needle.ops.joining import *
from needle.ops.linalg import *
from needle.ops.logic import *
from needle.ops.norm import *
from needle.ops.ops_mathematic import *
from needle.ops.ops_tuple import *
from needle.ops.reduce import *
from needle.ops.shape import *
from needle.ops.transfer import *
from needle.ops.tuples import *

__all__ = ["Conv", "FusedAddScalars", "Transpose", "conv"]
__all__ += arithmetic.__all__
__all__ += elementwise.__all__
__all__ += index.__all__
__all__ += joining.__all__
__all__ += linalg.__all__
__all__ += logic.__all__
__all__ += norm.__all__
__all__ += reduce.__all__
__all__ += shape.__all__
__all__ += transfer.__all__
__all__ += tuples.__all__
