"""Pooling by raw kernels equals the generic kernels."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels
from needle.kernels.layout import batch_first
from needle.ops.operand import make_window
from tests.gpu.shim_device import SHIM

WINDOWS = {  # *S, kernel, stride, padding, dilation
    "1-d": ((11,), 3, 2, 1, 1),
    "2x2": ((6, 8), 2, 2, 0, 1),
    "overlapping": ((7, 6), 3, 2, 1, 1),
    "dilated": ((9, 8), 2, 1, 0, 3),
    "gaps": ((7, 7), 2, 3, 0, 1),
    "3-d": ((4, 5, 6), (2, 3, 2), (1, 2, 2), (1, 1, 0), 1),
}


def window_of(name):
    size, kernel, stride, padding, dilation = WINDOWS[name]
    rank = len(size)
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * rank
    return size, kernel, make_window("pool", rank, stride, padding, dilation)


def values(shape, seed=0, nan=True):
    """Few values, so that windows hold equal ones, some NaN, some infinite."""
    draws = np.random.default_rng(seed)
    x = draws.integers(-3, 3, shape).astype("float32")
    x[draws.random(shape) < 0.05] = -np.inf
    if nan:
        x[draws.random(shape) < 0.05] = np.nan
    return x


@pytest.mark.parametrize("batch", [4, 3])
@pytest.mark.parametrize("name", WINDOWS)
def test_max_windows(name, batch, run):
    size, kernel, window = window_of(name)
    x = values((batch, 3, *size))
    expected = kernels.max_windows(x, kernel, window)
    for placed in (SHIM.array(x), batch_first(SHIM.array(np.moveaxis(x, 0, -1)))):
        result = kernels.max_windows(placed, kernel, window)
        np.testing.assert_array_equal(result, expected)
        assert result.transpose(*range(1, result.ndim), 0).flags.c_contiguous
