"""Filled and random tensors, and the initialisers of layers.

Random numbers come from NumPy's legacy global stream (`np.random.seed`) on every device, drawn on the host. Results
are float32 and require no gradient unless asked to.
"""

from needle.init.fans import (
    conv_fans,
    kaiming_normal,
    kaiming_uniform,
    xavier_normal,
    xavier_uniform,
)
from needle.init.fill import constant, from_dlpack, one_hot, ones, ones_like, rand, randb, randn, zeros, zeros_like

__all__ = [
    "constant",
    "conv_fans",
    "from_dlpack",
    "kaiming_normal",
    "kaiming_uniform",
    "one_hot",
    "ones",
    "ones_like",
    "rand",
    "randb",
    "randn",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
    "zeros_like",
]
