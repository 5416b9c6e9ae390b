"""Sums by BLAS are exact, in every memory order, on one thread and on two."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels, ops
from tests.kernels.memory_orders import draw, every_order
from tests.kernels.thresholds import thresholds


@pytest.mark.parametrize("length", [100, 700, 5000, 50000])
def test_sums_of_rows_are_as_exact_as_numpys(length):
    a, b = draw(8, length) + 1, draw(8, length, seed=1) + 2
    exact = a.astype("float64"), a.astype("float64") * b
    for result, terms in zip((kernels.row_sums(a), kernels.row_products(a, b)), exact, strict=True):
        np.testing.assert_allclose(result[:, 0], terms.sum(1), rtol=1e-6)


def test_products_of_rows_of_any_length():
    for length in 8192, 8193, 8200, 9001, 9300:
        a, b = draw(2, length) + 1, draw(2, length, seed=1) + 2
        a[:, -1] = 1e5
        np.testing.assert_allclose(kernels.row_products(a, b)[:, 0], (a.astype("float64") * b).sum(1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(300000,), (300000, 2), (2, 150001), (2, 150001, 2)], ids=str)
def test_sums_of_partial_sums_are_float64(shape, threads):
    """Integers whose sum float32 does not hold, but those of some thousands."""
    x = (np.random.default_rng(0).integers(900, 1000, shape)).astype("float32")
    axis = x.shape.index(max(x.shape))
    mean = kernels.means(x, (axis,), "float64")
    assert mean.dtype == "float64"
    np.testing.assert_array_equal(np.rint(mean * x.shape[axis]), x.sum(axis, keepdims=True, dtype="float64"))
    np.testing.assert_allclose(mean, x.mean(axis, keepdims=True, dtype="float64"), rtol=1e-14)


@every_order
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (64, 5, 8, 8)], ids=str)
@pytest.mark.parametrize("kept", [(1, None, 1, 1), (None, 1, 1, 1), (None, None, 1, 1), (None, 1, 1), (1, 1, 1, None)])
def test_sums_over_what_was_broadcast(order, shape, kept, threads):
    x = order(draw(*shape))
    lead = len(shape) - len(kept)
    target = tuple(n or m for n, m in zip(kept, shape[lead:], strict=True))
    axes = (*range(lead), *(i + lead for i, n in enumerate(kept) if n))
    result = ops.shape.SumTo(target).compute(x)
    assert result.shape == target
    np.testing.assert_allclose(result.ravel(), x.astype("float64").sum(axes).ravel(), rtol=1e-5, atol=1e-4)


@every_order
@pytest.mark.parametrize("axes", [(0,), (1,), (3,), (1, 2), (0, 2, 3), (0, 1, 2, 3)], ids=str)
def test_sums_that_threads_share(axes, order, threads):
    x = order(draw(7, 5, 6, 9))
    with thresholds(PARALLEL_SUM_BYTES=1, NUMPY_SUM_MAX_SIZE=1, BLOCK_BYTES=200, SPLIT_BYTES=1):
        result = kernels.sums(x, axes)
    np.testing.assert_allclose(result, x.astype("float64").sum(axes, keepdims=True), rtol=1e-5, atol=1e-5)
