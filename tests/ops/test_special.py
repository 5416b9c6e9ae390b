"""The error function against Python's, to the last places, and at its extremes."""

import math

import numpy as np
import pytest

import needle as ndl
from needle import kernels, ops, tuning
from tests.kernels.memory_orders import draw, every_order
from tests.ops.test_points import derivative


@pytest.mark.parametrize(("dtype", "units"), [("float64", 2.5), ("float32", 2.5), ("float16", 0.6)])
def test_erf_is_exact_to_the_last_places(dtype, units, device):
    x = np.concatenate([np.linspace(-7, 7, 2999), np.linspace(-0.1, 0.1, 999), np.geomspace(1e-7, 1, 999)])
    x = x.astype(dtype)
    expected = np.array([math.erf(value) for value in x.tolist()])
    errors = np.abs(ops.erf(ndl.Tensor(x, device=device)).numpy() - expected)
    assert (errors / np.spacing(np.abs(expected).astype(dtype))).max() <= units


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_erf_at_its_extremes(dtype, device):
    """Warnings are errors: an overflow on the way would show."""
    ends = [-np.inf, -np.finfo(dtype).max, -30.0, -0.0, 0.0, 30.0, np.finfo(dtype).max, np.inf, np.nan]
    y, slope = derivative(ops.erf, ends, device, dtype)
    np.testing.assert_array_equal(y, [-1, -1, -1, 0, 0, 1, 1, 1, np.nan])
    assert np.signbit(y[:5]).tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(slope, [0, 0, 0, *[2 / np.sqrt(np.pi)] * 2, 0, 0, 0, np.nan], rtol=1e-3)


@every_order
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_in_chunks_has_the_bits_of_erf_at_once(order, dtype, monkeypatch):
    x = order(draw(6, 5, 4, 7, dtype=dtype))
    whole = kernels.erf(x)
    monkeypatch.setattr(tuning, "BLOCK_BYTES", 2048)
    np.testing.assert_array_equal(kernels.erf(x), whole)
