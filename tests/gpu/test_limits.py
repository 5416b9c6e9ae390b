"""Sizes that 32 bits do not number, and empty results, take the generic path."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels
from needle.backend import cpu
from needle.kernels.dropout import Draws, Part
from needle.kernels.gpu import source as frame
from needle.kernels.gpu.batch import turn
from needle.ops.operand import make_window
from tests.gpu.shim_device import SHIM

PADDED, STRIDED = make_window("test", 2, 1, 2), make_window("test", 2, 3, 0)
CALLS = {  # more than 100 elements, or places and images, from arrays of fewer
    "correlate": lambda x: kernels.correlate(x(2, 1, 6, 6), x(1, 1, 3, 3), PADDED),
    "correlate_rectified": lambda x: kernels.correlate_rectified(x(2, 1, 6, 6), x(1, 1, 3, 3), PADDED),
    "correlate_transpose": lambda x: kernels.correlate_transpose(x(2, 1, 3, 3), x(1, 1, 2, 2), STRIDED, (8, 8)),
    "correlate_transpose_biased": lambda x: kernels.correlate_transpose_biased(
        x(2, 1, 3, 3), x(1, 1, 2, 2), STRIDED, (8, 8), x(1)
    ),
    "max_windows": lambda x: kernels.max_windows(x(2, 1, 6, 6), (3, 3), PADDED),
    "sum_windows": lambda x: kernels.sum_windows(x(2, 1, 6, 6), (3, 3), PADDED),
    "spread_windows": lambda x: kernels.spread_windows(x(2, 1, 3, 3), (2, 2), STRIDED, (8, 8)),
    "unfold": lambda x: kernels.unfold(x(2, 1, 6, 6), PADDED, (3, 3)),
    "fold": lambda x: kernels.fold(x(2, 4, 9), STRIDED, (2, 2), (8, 8)),
    "linear": lambda x: kernels.linear(x(30, 3), x(3, 20), x(20)),
    "drop": lambda x: kernels.drop(x(50), 0.5, Draws(7, (150,), Part(0, 50, 100))),
    "relu_grad": lambda x: kernels.relu_grad(x(101), x(101)),
}


SHIFTED = make_window("test", 2, (1, 3), ((0, 0), (1, 0)))
EMPTY = {  # from arrays with elements
    "correlate_transpose": lambda x: kernels.correlate_transpose(x(2, 1, 3, 1), x(1, 1, 2, 1), SHIFTED, (4, 0)),
    "correlate_transpose_biased": lambda x: kernels.correlate_transpose_biased(
        x(2, 1, 3, 1), x(1, 1, 2, 1), SHIFTED, (4, 0), x(1)
    ),
    "spread_windows": lambda x: kernels.spread_windows(x(2, 1, 3, 1), (2, 1), SHIFTED, (4, 0)),
    "fold": lambda x: kernels.fold(x(2, 2, 3), SHIFTED, (2, 1), (4, 0)),
}


def draw(device):
    draws = np.random.default_rng(0)
    return lambda *shape: device.array(draws.normal(size=shape).astype("float32"))


@pytest.mark.parametrize("name", CALLS)
def test_sizes_beyond_32_bits_are_for_the_generic_path(name, monkeypatch):
    monkeypatch.setattr(frame, "MOST_ELEMENTS", 100)
    monkeypatch.setattr(frame.Source, "launch", lambda *_: pytest.fail("a kernel was launched"))
    np.testing.assert_allclose(CALLS[name](draw(SHIM)), CALLS[name](draw(cpu())), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EMPTY)
def test_empty_results_need_no_launch(name):
    result, expected = EMPTY[name](draw(SHIM)), EMPTY[name](draw(cpu()))
    assert result.shape == expected.shape
    assert result.size == 0


def test_the_blocks_of_a_batch_are_along_x_where_a_grid_has_most(monkeypatch):
    launched = []
    monkeypatch.setattr(frame.Source, "launch", lambda _, like, name, grid, *rest: launched.append((name, grid)))
    turn(SHIM.xp.empty((65536 * 32 + 1, 1), "uint8"))
    assert launched == [("turn_bytes", (65537,))]
