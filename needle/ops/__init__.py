"""Every op: its `compute` beside its `gradient`, and the function that checks arguments and applies it.

`__all__` of each file lists its functions and the op classes that the course names; other op classes are in the
file of their subject, for instance `needle.ops.shape.Permute`.
"""

from typing import TYPE_CHECKING

from needle.ops import (
    index,
    logic,
    methods,  # attaches operators and methods to tensors
    norm,
    ops_logarithmic,  # the course's modules; the next one re-exports arithmetic to shape
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

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    __all__ = [name for file in (index, logic, norm, ops_mathematic, ops_tuple, transfer) for name in file.__all__]
