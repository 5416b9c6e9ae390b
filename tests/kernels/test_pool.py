"""Pooling by chunks of channels, which threads share, returns the same bits as pooling all at once."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from needle import kernels, tuning
from needle.backend import cpu
from needle.kernels.layout import batch_first
from needle.ops.operand import make_window

ORDERS = {
    "row-major": lambda x: x,
    "batch-last": lambda x: batch_first(np.ascontiguousarray(np.moveaxis(x, 0, -1))),
}
WINDOWS = {
    "2x2": (2, 2, 0),
    "with gaps": (2, 3, 0),
    "with overlap": (3, 2, 1),
    "with padding": (2, 2, 1),
    "1x1": (1, 1, 0),
    "1x1 with stride": (1, 2, 0),
}


def results(x, y, kernel, window):
    best = kernels.max_windows(x, kernel, window)
    y = y[:, :, : best.shape[2], : best.shape[3]]
    return (
        best,
        kernels.scatter_to_max(y, x, best, kernel, window),
        kernels.gather_at_max(x, x, best, kernel, window),
        kernels.sum_windows(x, kernel, window),
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("values", ["all", "few", "with NaN"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize(("k", "s", "p"), WINDOWS.values(), ids=WINDOWS)
def test_chunks_return_the_same_bits(k, s, p, order, values, threads, monkeypatch):
    draws = np.random.default_rng(0)
    x, y = (draws.standard_normal((5, 7, 6, 8)).astype("float32") for _ in range(2))
    if values != "all":
        x = np.round(x)
    if values == "with NaN":
        x[draws.random(x.shape) < 0.1] = np.nan
    kernel, window = (k, k), make_window("pool", 2, (s, s), p, 1)
    computed = []
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        for least in (1 << 40, 0):
            monkeypatch.setattr(tuning, "PARALLEL_POOL_BYTES", least)
            computed.append(results(order(x), order(y), kernel, window))
    for array, expected in zip(*computed, strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    best, scattered = computed[0][:2]
    y = y[:, :, : best.shape[2], : best.shape[3]]
    np.testing.assert_allclose(scattered.sum((2, 3)), y.sum((2, 3)), rtol=1e-4, atol=1e-5)
    assert not np.isnan(scattered).any()


def test_a_big_batch_is_shared(monkeypatch):
    parts = []
    monkeypatch.setattr(type(cpu()), "parallel_for", lambda self, work, chunks, uses_blas: parts.extend(chunks))
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        for batch in (64, 8):
            x = batch_first(np.ones((16, 28, 28, batch), "float32"))
            kernels.max_windows(x, (2, 2), make_window("pool", 2, (2, 2), 0, 1))
    assert len(parts) == 4
