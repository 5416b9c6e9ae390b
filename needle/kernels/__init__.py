"""Convolution and pooling on raw arrays; nothing here knows of graphs."""

from needle.kernels.conv import (
    conv_algorithm,
    correlate,
    correlate_gradients,
    correlate_transpose,
    correlate_weight,
    fold,
    unfold,
)
from needle.kernels.layout import is_turned_by_blocks, turned
from needle.kernels.matmul import matmul
from needle.kernels.pool import gather_at_max, locate_max, max_windows, scatter_to_max, spread_windows, sum_windows
from needle.kernels.rows import SHARED_BYTES, Rows, elementwise, row_products, row_sums, sums
from needle.kernels.window import Size, Window, same_padding

__all__ = [
    "SHARED_BYTES",
    "Rows",
    "Size",
    "Window",
    "conv_algorithm",
    "correlate",
    "correlate_gradients",
    "correlate_transpose",
    "correlate_weight",
    "elementwise",
    "fold",
    "gather_at_max",
    "is_turned_by_blocks",
    "locate_max",
    "matmul",
    "max_windows",
    "row_products",
    "row_sums",
    "same_padding",
    "scatter_to_max",
    "spread_windows",
    "sum_windows",
    "sums",
    "turned",
    "unfold",
]
