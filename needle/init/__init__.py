"""Tensors filled with constants or random draws, and the initializers of layers.

Random numbers come from NumPy's legacy global stream (`np.random.seed`) on every device, drawn on the host. Results
are float32 and require no gradient unless asked to.
"""

from needle.init import dlpack, fans, fill, random
from needle.init.dlpack import *
from needle.init.fans import *
from needle.init.fill import *
from needle.init.random import *

__all__: list[str] = []
__all__ += dlpack.__all__
__all__ += fans.__all__
__all__ += fill.__all__
__all__ += random.__all__
