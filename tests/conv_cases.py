"""The conformance table of convolution: shapes and options on which each level must agree with torch.

A row has a name, the shapes of x (N, C, *S) and weight (O, C/G, *K), and the options of torch's convolution.
"""

from typing import Any

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    # one axis
    "1d": ((2, 3, 9), (4, 3, 3), {}),
    "1d of kernel 1": ((2, 3, 9), (4, 3, 1), {}),
    "1d of kernel 2, stride 2": ((2, 3, 9), (4, 3, 2), {"stride": 2}),
    "1d with everything": ((2, 4, 15), (6, 2, 3), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}),
    "1d depthwise": ((2, 4, 9), (4, 1, 3), {"padding": 1, "groups": 4}),
    # two axes
    "3x3": ((2, 3, 6, 5), (4, 3, 3, 3), {}),
    "3x3 that keeps the size": ((2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}),
    "3x3 that halves an even size": ((2, 3, 6, 8), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "3x3 that halves an odd size": ((2, 3, 7, 5), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "5x5": ((2, 2, 6, 7), (3, 2, 5, 5), {"padding": 2}),
    "even kernel": ((2, 2, 5, 5), (3, 2, 2, 4), {"padding": 1}),
    "1x1": ((2, 3, 4, 5), (4, 3, 1, 1), {}),
    "1x1 with stride": ((2, 3, 5, 5), (4, 3, 1, 1), {"stride": 2}),
    "1x1 with stride and remainder": ((2, 3, 6, 6), (4, 3, 1, 1), {"stride": 2}),
    "1x1 with padding": ((2, 3, 4, 4), (4, 3, 1, 1), {"padding": 2}),
    "1x1 with groups": ((2, 4, 4, 4), (6, 2, 1, 1), {"groups": 2}),
    "1x1 with dilation": ((2, 3, 4, 4), (4, 3, 1, 1), {"dilation": 3}),
    "1xK": ((2, 3, 5, 6), (4, 3, 1, 4), {"padding": (0, 2)}),
    "Kx1": ((2, 3, 6, 5), (4, 3, 4, 1), {"padding": (2, 0)}),
    "patches": ((2, 3, 8, 8), (5, 3, 4, 4), {"stride": 4}),
    "patches with remainder": ((2, 3, 11, 10), (5, 3, 4, 4), {"stride": 4}),
    "stride beyond the kernel": ((2, 3, 12, 13), (4, 3, 2, 2), {"stride": 5}),
    "stride beyond the input": ((2, 3, 4, 4), (4, 3, 2, 2), {"stride": 9}),
    "dilation": ((2, 3, 8, 7), (4, 3, 3, 3), {"dilation": 2}),
    "dilation that keeps the size": ((2, 3, 6, 6), (4, 3, 3, 3), {"padding": 3, "dilation": 3}),
    "padding beyond the kernel": ((2, 3, 3, 4), (4, 3, 2, 2), {"padding": 4}),
    "kernel beyond the input": ((2, 3, 2, 2), (4, 3, 5, 5), {"padding": 2}),
    "kernel of the input's size": ((2, 3, 4, 5), (4, 3, 4, 5), {}),
    "stride, padding, dilation": ((2, 3, 10, 11), (4, 3, 3, 2), {"stride": 3, "padding": 2, "dilation": 2}),
    "options by axis": ((2, 3, 9, 11), (4, 3, 3, 2), {"stride": (2, 1), "padding": (0, 3), "dilation": (1, 4)}),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2}),
    "as many groups as out-channels": ((2, 6, 5, 5), (3, 2, 3, 3), {"groups": 3}),
    "depthwise": ((2, 4, 5, 5), (4, 1, 3, 3), {"padding": 1, "groups": 4}),
    "depthwise with stride": ((2, 4, 6, 6), (4, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 4}),
    "channel multiplier": ((2, 3, 5, 5), (9, 1, 3, 3), {"padding": 1, "groups": 3}),
    "everything": (
        (2, 4, 11, 12),
        (6, 2, 3, 2),
        {"stride": (2, 3), "padding": (3, 1), "dilation": (2, 3), "groups": 2},
    ),
    "one image": ((1, 3, 6, 6), (4, 3, 3, 3), {"padding": 1}),
    "one channel": ((3, 1, 6, 6), (4, 1, 3, 3), {"padding": 1}),
    "one out-channel": ((3, 4, 6, 6), (1, 4, 3, 3), {"padding": 1}),
    "one element": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "empty batch": ((0, 3, 6, 6), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    # three axes
    "3d": ((2, 2, 4, 5, 4), (3, 2, 3, 3, 3), {}),
    "3d with padding": ((2, 2, 3, 4, 3), (3, 2, 3, 3, 3), {"padding": 1}),
    "3d of kernel 1": ((2, 2, 3, 4, 3), (3, 2, 1, 1, 1), {}),
    "3d patches": ((2, 2, 4, 4, 6), (3, 2, 2, 2, 2), {"stride": 2}),
    "3d with everything": (
        (2, 4, 6, 5, 7),
        (4, 2, 2, 3, 2),
        {"stride": (2, 1, 3), "padding": (1, 2, 0), "dilation": (3, 1, 2), "groups": 2},
    ),
    "3d depthwise": ((1, 3, 4, 4, 4), (6, 1, 3, 3, 3), {"padding": 1, "groups": 3}),
}
