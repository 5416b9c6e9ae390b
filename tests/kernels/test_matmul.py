"""Matrix products that threads share, along each axis and under every broadcast."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels
from needle.backend import cpu
from tests.kernels.memory_orders import draw, every_order
from tests.kernels.thresholds import thresholds


@pytest.fixture
def shares(monkeypatch):
    """The number of chunks of each parallel loop."""
    counts, parallel_for = [], cpu().parallel_for

    def counting(body, chunks, *options):
        chunks = list(chunks)
        counts.append(len(chunks))
        parallel_for(body, chunks, *options)

    monkeypatch.setattr(cpu(), "parallel_for", counting)
    return counts


@every_order
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((9, 2, 3), (9, 3, 4)),
        ((9, 2, 3), (1, 3, 4)),
        ((1, 2, 3), (9, 3, 4)),
        ((9, 2, 3), (3, 4)),
        ((2, 3), (9, 3, 4)),
        ((9, 1, 2, 3), (5, 3, 4)),
        ((5, 2, 3), (9, 1, 3, 4)),
        ((1, 9, 2, 3), (5, 1, 3, 4)),
        ((9, 3), (3, 4)),
        ((2, 9, 3), (2, 3, 4)),
        ((9, 3), (5, 3, 4)),
        ((2, 3), (3, 9)),
        ((5, 2, 3), (3, 9)),
        ((2, 3), (5, 3, 9)),
        ((9, 1, 3), (9, 3, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_shared_product_is_that_of_numpy(a, b, dtype, order, threads, shares):
    left, right = order(draw(*a, dtype=dtype)), order(draw(*b, seed=1))
    with thresholds(BLAS_ONE_THREAD_MACS=0, BLAS_ONE_THREAD_VECTOR_MACS=0, PARALLEL_MATMUL_MACS=0):
        result = kernels.matmul(left, right)
    assert shares == [2] * (threads > 1)
    expected = left.astype("float64") @ right.astype("float64")
    assert (result.shape, result.dtype) == (expected.shape, dtype)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
