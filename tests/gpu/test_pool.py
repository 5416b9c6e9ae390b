"""Pooling by raw kernels equals the generic kernels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from needle import kernels
from needle.kernels.layout import batch_last
from needle.ops.operand import make_window
from tests.gpu.faults import Fault
from tests.gpu.shim_device import SHIM, placed

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
def test_maxima(name, batch, run):
    size, kernel, window = window_of(name)
    x = values((batch, 3, *size))
    best = kernels.max_windows(x, kernel, window)
    y, g = values(best.shape, 1, nan=False), values(x.shape, 2)
    expected = [
        best,
        kernels.scatter_to_max(y, x, best, kernel, window),
        kernels.gather_at_max(g, x, best, kernel, window),
        kernels.locate_max(x, best, kernel, window),
    ]
    for order in (True, False):
        x_there, best_there = placed(x, order), placed(best, order)
        results = [
            kernels.max_windows(x_there, kernel, window),
            kernels.scatter_to_max(placed(y, order), x_there, best_there, kernel, window),
            kernels.gather_at_max(placed(g, order), x_there, best_there, kernel, window),
            kernels.locate_max(x_there, best_there, kernel, window),
        ]
        for result, right in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, right, strict=False)
            assert result.dtype == right.dtype
            assert batch_last(result).flags.c_contiguous


@pytest.mark.parametrize("batch", [4, 3])
@pytest.mark.parametrize("name", WINDOWS)
def test_sums(name, batch, run):
    size, kernel, window = window_of(name)
    x = np.random.default_rng(0).integers(-9, 9, (batch, 3, *size)).astype("float32")  # of which sums are exact
    total = kernels.sum_windows(x, kernel, window)
    result = kernels.sum_windows(placed(x), kernel, window)
    np.testing.assert_array_equal(result, total)
    assert batch_last(result).flags.c_contiguous
    result = kernels.spread_windows(placed(total), kernel, window, size)
    np.testing.assert_array_equal(result, kernels.spread_windows(total, kernel, window, size))
    assert batch_last(result).flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_other_dtypes_take_the_generic_path(dtype, run):
    size, kernel, window = window_of("2x2")
    x = np.arange(3 * np.prod(size)).reshape(1, 3, *size).astype(dtype)
    result = kernels.max_windows(SHIM.array(x), kernel, window)
    np.testing.assert_array_equal(result, kernels.max_windows(x, kernel, window))
    assert result.dtype == dtype


def test_streams_use_whole_sectors(sectors):
    size, kernel, window = window_of("2x2")
    x = placed(values((64, 3, *size)))
    best = kernels.max_windows(x, kernel, window)
    kernels.scatter_to_max(best, x, best, kernel, window)
    kernels.spread_windows(kernels.sum_windows(x, kernel, window), kernel, window, size)
    sectors.assert_streams("max_pool_4", "sum_pool_4", "sum_pool_back_4")
    assert sectors.used("max_pool_back_4", write=True) == 1  # it reads single elements where it searches


OVERLAPPING, FEW = partial(test_maxima, "overlapping", 4), partial(test_maxima, "2x2", 3)
GUARDED = """void sum_pool(const float* x, float* y, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count)"""
FAULTS = [
    Fault("pool.cu", "NaN passed over", "best.v[v] || here.v[v] != here.v[v]) best", "best.v[v]) best", FEW),
    Fault("pool.cu", "the last of equal ones", "value == best && found < 0", "value == best", FEW),
    Fault("pool.cu", "padding behind is read", "s1 >= w.size[1]", "s1 > w.size[1]", OVERLAPPING),
    Fault("pool.cu", "gradients to all equal ones", "batch, from) == tap)", "batch, from) >= 0)", FEW),
    Fault(
        "pool.cu", "threads past the end", GUARDED, GUARDED.replace(">= count", "> count"), partial(test_sums, "2x2", 3)
    ),
    Fault("pool.cu", "one window too many", "p < w.output[axis]", "p <= w.output[axis]", OVERLAPPING),
]
