"""A device may replace the public kernels of needle."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels
from needle.backend import cpu
from needle.kernels import Window

WINDOW = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
CHANNELS, AXES = np.ones((1, 2, 1, 1)), (0, 2, 3)
STATISTICS = CHANNELS, CHANNELS, AXES, 1e-5  # mean, variance, axes, eps
X, W, Y = np.ones((1, 2, 4, 4)), np.ones((3, 2, 2, 2)), np.ones((1, 3, 3, 3))
BEST, COLUMNS = np.ones((1, 2, 3, 3)), np.ones((1, 8, 9))
CALLS = {
    "correlate": (X, W, WINDOW),
    "correlate_transpose": (Y, W, WINDOW, (4, 4)),
    "correlate_weight": (X, Y, WINDOW, (2, 2)),
    "correlate_rectified": (X, W, WINDOW),
    "correlate_transpose_biased": (Y, W, WINDOW, (4, 4), np.ones(2)),
    "correlate_backward": (Y, X, W, WINDOW, (True, False)),
    "correlate_transpose_backward": (X, Y, W, WINDOW, (True, False)),
    "unfold": (X, WINDOW, (2, 2)),
    "fold": (COLUMNS, WINDOW, (2, 2), (4, 4)),
    "max_windows": (X, (2, 2), WINDOW),
    "locate_max": (X, BEST, (2, 2), WINDOW),
    "scatter_to_max": (BEST, X, BEST, (2, 2), WINDOW),
    "gather_at_max": (X, X, BEST, (2, 2), WINDOW),
    "sum_windows": (X, (2, 2), WINDOW),
    "spread_windows": (BEST, (2, 2), WINDOW, (4, 4)),
    "matmul": (X, X),
    "relu_grad": (X, X),
    "sums": (X, (0, 2)),
    "means": (X, (0, 2)),
    "erf": (X,),
    "softmax_cross_entropy": (X[0, 0], np.arange(4), -1, True),
    "join": (X, [X, X], np.zeros(2 * X.size)),
    "squared_error": (X, X, True),
    "scaled_gradient": (X, np.ones(()), np.ones(())),
    "standardize_array": (X, None, None, AXES, 1e-5),
    "standardize_gradients": (X, X, None, None, None, *STATISTICS),
    "part_moments": (X, AXES),
    "standardize_part": (X, None, None, [np.arange(1.0, 6)], AXES, 1e-5),
    "part_gradient_sums": (X, X, None, None, None, *STATISTICS),
    "part_gradient": (X, X, None, CHANNELS, CHANNELS, np.ones((2, 1, 2, 1, 1)), np.full((1, 1, 1, 1), 16), AXES, 1e-5),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_device_may_replace_a_kernel(name, monkeypatch):
    kernel, calls = getattr(kernels, name), []
    expected = kernel(*CALLS[name])
    monkeypatch.setitem(cpu().kernels, name, lambda *arguments: calls.append(arguments) or "replaced")
    assert kernel(*CALLS[name]) == "replaced"
    assert len(calls) == 1
    monkeypatch.delitem(cpu().kernels, name)
    results, expected = ([*r] if isinstance(r, tuple) else [r] for r in (kernel(*CALLS[name]), expected))
    assert all(a is b is None or np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


def test_both_gradients_use_the_kernels_of_the_device(monkeypatch):
    for name in ("correlate_transpose", "correlate_weight"):
        monkeypatch.setitem(cpu().kernels, name, lambda *arguments, name=name: name)
    assert kernels.correlate_gradients(X, W, Y, WINDOW) == ("correlate_transpose", "correlate_weight")
