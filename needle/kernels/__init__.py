"""Kernels on raw arrays of any device: convolution, pooling, matrix products, sums; nothing here knows of graphs.

Functions trust their arguments, which the ops above have checked. A device may replace any of those decorated with
`overridable`. Files, each of which uses only those before it: window, layout, elementwise, matmul, reduce, rows, pool,
conv.
"""

from needle.kernels.conv import (
    conv_algorithm,
    correlate,
    correlate_gradients,
    correlate_transpose,
    correlate_weight,
    fold,
    unfold,
)
from needle.kernels.elementwise import elementwise
from needle.kernels.layout import needs_blocked_copy, to_batch_last
from needle.kernels.matmul import matmul
from needle.kernels.pool import gather_at_max, locate_max, max_windows, scatter_to_max, spread_windows, sum_windows
from needle.kernels.reduce import row_products, row_sums, sums
from needle.kernels.rows import Rows
from needle.kernels.window import Size, Window, same_padding

__all__ = [
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
    "locate_max",
    "matmul",
    "max_windows",
    "needs_blocked_copy",
    "row_products",
    "row_sums",
    "same_padding",
    "scatter_to_max",
    "spread_windows",
    "sum_windows",
    "sums",
    "to_batch_last",
    "unfold",
]
