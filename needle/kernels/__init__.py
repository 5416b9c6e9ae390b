"""Convolution and pooling on raw arrays; nothing here knows of graphs."""

from needle.kernels.convolution import correlate, correlate_transpose, correlate_weight
from needle.kernels.pooling import gather_at_max, max_windows, scatter_to_max, spread_windows, sum_windows
from needle.kernels.window import Size, Window

__all__ = [
    "Size",
    "Window",
    "correlate",
    "correlate_transpose",
    "correlate_weight",
    "gather_at_max",
    "max_windows",
    "scatter_to_max",
    "spread_windows",
    "sum_windows",
]
