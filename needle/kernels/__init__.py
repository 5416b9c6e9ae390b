"""Convolution and pooling on raw arrays; nothing here knows of graphs."""

from needle.kernels.columns import fold, unfold
from needle.kernels.convolution import conv_algorithm, correlate, correlate_transpose, correlate_weight
from needle.kernels.pooling import gather_at_max, locate_max, max_windows, scatter_to_max, spread_windows, sum_windows
from needle.kernels.rows import Rows, elementwise, row_products, row_sums
from needle.kernels.window import Size, Window, same_padding

__all__ = [
    "Rows",
    "Size",
    "Window",
    "conv_algorithm",
    "correlate",
    "correlate_transpose",
    "correlate_weight",
    "elementwise",
    "fold",
    "gather_at_max",
    "locate_max",
    "max_windows",
    "row_products",
    "row_sums",
    "same_padding",
    "scatter_to_max",
    "spread_windows",
    "sum_windows",
    "unfold",
]
