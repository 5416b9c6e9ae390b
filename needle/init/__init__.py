"""Tensors filled with constants or random draws, and the initializers of layers.

Random numbers come from NumPy's legacy global stream (`np.random.seed`) on every device, drawn on the host. Results
are float32 and require no gradient unless asked to.
"""

from typing import TYPE_CHECKING

from needle.init import dlpack, fans, fill, random
from needle.init.dlpack import *
from needle.init.fans import *
from needle.init.fill import *
from needle.init.random import *

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    __all__ = [name for file in (dlpack, fans, fill, random) for name in file.__all__]
