"""Tensors filled with constants or random draws, and the initializers of layers.

Random numbers come from NumPy's legacy global stream (`np.random.seed`) on every device, drawn on the host. Results
are float32 and require no gradient unless asked to.
"""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.init.dlpack import *
from needle.init.fans import *
from needle.init.fill import *
from needle.init.random import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
