"""Random tensors: their values, order and stream."""

from __future__ import annotations

import numpy as np
import pytest

from needle import init
from needle.backend import default_device
from tests.init.alike import expect

pytestmark = pytest.mark.usefixtures("on_device")


def test_rand():
    np.random.seed(5)
    draws = np.random.rand(3, 4)
    np.random.seed(5)
    expect(init.rand(3, 4), draws)
    np.random.seed(5)
    expect(init.rand(3, 4, low=-2.0, high=5.0), draws * 7 - 2)
    np.random.seed(5)
    assert init.rand(3, 4, dtype="float64").numpy().tolist() == draws.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2.0, 5.0), (0.1, 0.3), (-0.3, -0.1), (1e3, 1001), (2, 2)])
def test_rand_stays_below_its_bound(low, high, dtype, monkeypatch):
    """Rounding may reach the bound: in float32 once in 30 million draws, in float16 once in 4,096."""
    monkeypatch.setattr(np.random, "rand", lambda *shape: np.full(shape, np.nextafter(1, 0)))
    x = init.rand(3, low=low, high=high, dtype=dtype).numpy()
    assert x.dtype == dtype
    assert (x.astype("float64") < high).all() if low < high else (x == low).all()
    np.testing.assert_allclose(x, high, rtol=3e-3)
    assert (default_device().rand(3, dtype=dtype).numpy() < 1).all()


def test_randn():
    np.random.seed(5)
    draws = np.random.randn(3, 4)
    np.random.seed(5)
    expect(init.randn(3, 4), draws)
    np.random.seed(5)
    expect(init.randn(3, 4, mean=-2.0, std=5.0), draws * 5 - 2)
    np.random.seed(5)
    assert init.randn(3, 4, dtype="float64").numpy().tolist() == draws.tolist()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_randb(p):
    np.random.seed(5)
    draws = np.random.rand(30, 40)
    np.random.seed(5)
    x = init.randb(30, 40, p=p)
    assert x.dtype == "bool"
    assert x.numpy().tolist() == (draws <= p).tolist()
    assert init.randb(2, dtype="float32").dtype == "float32"


def test_randb_includes_its_bound(monkeypatch):
    monkeypatch.setattr(np.random, "rand", lambda *shape: np.array([0.0, 0.3, np.nextafter(0.3, 1)]))
    assert init.randb(3, p=0.3).numpy().tolist() == [True, True, False]
    assert init.randb(3, p=0).numpy().tolist() == [True, False, False]


def test_randb_is_true_half_of_the_time_by_default():
    assert abs(init.randb(10_000).numpy().mean() - 0.5) < 0.02


def test_draws_follow_one_another():
    np.random.seed(5)
    draws = np.random.rand(2), np.random.randn(2), np.random.rand(2)
    np.random.seed(5)
    expect(init.rand(2), draws[0])
    expect(init.randn(2), draws[1])
    expect(init.rand(2), draws[2])


@pytest.mark.parametrize("number", [np.float64, np.float32, int, np.array])
def test_numbers_of_other_types_keep_the_dtype(number):
    for x in (
        init.rand(2, low=number(1), high=number(3)),
        init.randn(2, mean=number(1), std=number(3)),
        init.constant(2, c=number(3)),
        init.xavier_uniform(2, 3, gain=number(2)),
        init.xavier_normal(2, 3, gain=number(2)),
    ):
        assert x.dtype == "float32"
