"""Convolution on raw arrays: three passes of one trilinear form, each by several algorithms."""

from needle.kernels.conv.col2im import fold, unfold
from needle.kernels.conv.dispatch import (
    conv_algorithm,
    correlate,
    correlate_gradients,
    correlate_transpose,
    correlate_weight,
)

__all__ = [
    "conv_algorithm",
    "correlate",
    "correlate_gradients",
    "correlate_transpose",
    "correlate_weight",
    "fold",
    "unfold",
]
