"""Kernels on raw arrays of any device: convolution, pooling, matrix products, sums; no kernel knows about graphs.

Functions trust their arguments, which the ops above have checked. A device may replace those decorated with
`overridable`. Each file uses only the files before it: window, layout, elementwise, division, activation, erf, matmul,
join, reduce, rows, standardize, normalize, normalize_part, loss, update, clip, dropout, pool, conv. `gpu` has what
replaces them on GPUs.
"""

from collections.abc import Callable as _Callable
from collections.abc import Mapping as _Mapping
from typing import TYPE_CHECKING
from typing import Any as _Any

from needle.backend import kernel_providers as _kernel_providers
from needle.exports import public_names as _public_names
from needle.kernels.activation import *
from needle.kernels.clip import *
from needle.kernels.conv.col2im import *
from needle.kernels.conv.dispatch import *
from needle.kernels.conv.im2col import *
from needle.kernels.division import *
from needle.kernels.dropout import *
from needle.kernels.elementwise import *  # a function may share its file's name: on the package, the function wins
from needle.kernels.erf import *
from needle.kernels.join import *
from needle.kernels.layout import *
from needle.kernels.linear import *
from needle.kernels.loss import *
from needle.kernels.matmul import *
from needle.kernels.normalize import *
from needle.kernels.normalize_part import *
from needle.kernels.pool import *
from needle.kernels.reduce import *
from needle.kernels.rows import *
from needle.kernels.standardize import *
from needle.kernels.update import *
from needle.kernels.window import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())


def _raw_kernels() -> _Mapping[str, _Callable[..., _Any]]:
    """What replaces these kernels on GPUs."""
    from needle.kernels.gpu import LAUNCHERS

    return LAUNCHERS


_kernel_providers.append(_raw_kernels)
