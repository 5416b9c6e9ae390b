"""The course's initializers: their draws from NumPy's global stream, and the values that they compute from these."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import init

MADE = [
    (lambda **o: init.rand(2, 3, **o), lambda: np.random.rand(2, 3)),
    (lambda **o: init.rand(2, 3, low=-1.0, high=3.0, **o), lambda: np.random.rand(2, 3) * 4 - 1),
    (lambda **o: init.rand(**o), lambda: np.random.rand()),
    (lambda **o: init.randn(2, 3, **o), lambda: np.random.randn(2, 3)),
    (lambda **o: init.randn(5, mean=2.0, std=0.5, **o), lambda: np.random.randn(5) * 0.5 + 2),
    (lambda **o: init.randb(20, p=0.3, **o), lambda: np.random.rand(20) <= 0.3),
    (lambda **o: init.randb(4, 5, **o), lambda: np.random.rand(4, 5) <= 0.5),
    (lambda **o: init.constant(2, 3, **o), lambda: np.ones((2, 3))),
    (lambda **o: init.constant(2, 3, c=2.5, **o), lambda: np.full((2, 3), 2.5)),
    (lambda **o: init.ones(2, 3, **o), lambda: np.ones((2, 3))),
    (lambda **o: init.zeros(2, 3, **o), lambda: np.zeros((2, 3))),
    (lambda **o: init.xavier_uniform(3, 5, **o), lambda: (np.random.rand(3, 5) * 2 - 1) * math.sqrt(6 / 8)),
    (lambda **o: init.xavier_uniform(3, 5, gain=1.5, **o), lambda: (np.random.rand(3, 5) * 3 - 1.5) * math.sqrt(6 / 8)),
    (lambda **o: init.xavier_normal(3, 5, **o), lambda: np.random.randn(3, 5) * 0.5),
    (lambda **o: init.xavier_normal(3, 5, gain=0.33, **o), lambda: np.random.randn(3, 5) * 0.33 * 0.5),
    (lambda **o: init.kaiming_uniform(3, 5, **o), lambda: (np.random.rand(3, 5) * 2 - 1) * math.sqrt(2)),
    (
        lambda **o: init.kaiming_uniform(18, 9, shape=(3, 3, 2, 1), nonlinearity="relu", **o),
        lambda: (np.random.rand(3, 3, 2, 1) * 2 - 1) * math.sqrt(2) * math.sqrt(3 / 18),
    ),
    (lambda **o: init.kaiming_normal(4, 5, **o), lambda: np.random.randn(4, 5) * math.sqrt(2) / 2),
    (lambda **o: init.kaiming_normal(4, 5, nonlinearity="relu", **o), lambda: np.random.randn(4, 5) * math.sqrt(0.5)),
]


@pytest.mark.parametrize(("make", "draw"), MADE)
@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"requires_grad": True}], ids=str)
def test_values_and_draws(make, draw, options, device):
    np.random.seed(7)
    expected, following = draw(), np.random.rand()
    np.random.seed(7)
    x = make(device=device, **options)
    assert np.random.rand() == following  # the same draws and no others
    assert isinstance(x, ndl.Tensor)
    assert x.is_leaf()
    default = "bool" if getattr(expected, "dtype", None) == "bool" else "float32"
    assert (x.shape, x.dtype, x.device) == (np.shape(expected), options.get("dtype", default), device)
    assert x.requires_grad is options.get("requires_grad", False)
    assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rand", {"low": 0, "high": 1}),
        ("randn", {"mean": 0, "std": 1}),
        ("constant", {"c": 1}),
        ("randb", {"p": 0.5, "dtype": "bool"}),
        ("xavier_uniform", {"fan_in": ..., "fan_out": ..., "gain": 1}),
        ("xavier_normal", {"fan_in": ..., "fan_out": ..., "gain": 1}),
        ("kaiming_uniform", {"fan_in": ..., "fan_out": ..., "shape": None, "nonlinearity": "relu"}),
        ("kaiming_normal", {"fan_in": ..., "fan_out": ..., "nonlinearity": "relu"}),
    ],
)
def test_arguments(name, arguments):
    parameters = inspect.signature(getattr(init, name)).parameters
    for argument, default in arguments.items():
        assert default is ... or parameters[argument].default == default


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_another(dtype, device):
    x = ndl.Tensor(np.full((2, 3), 5, dtype), device=device)
    for like, value in ((init.ones_like, 1), (init.zeros_like, 0)):
        for requires_grad in (False, True):
            y = like(x, requires_grad=requires_grad)
            assert (y.shape, y.dtype, y.device, y.requires_grad) == ((2, 3), dtype, device, requires_grad)
            assert_array_equal(y.numpy(), np.full((2, 3), value))
        assert like(x, dtype="int64", device=device).dtype == "int64"


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
@pytest.mark.parametrize("i", [[2, 0, 1], [[1, 1], [0, 2]], 1], ids=str)
def test_one_hot(i, dtype, device):
    x = init.one_hot(3, ndl.Tensor(np.array(i, dtype), device=device), device=device)
    assert (x.dtype, x.device, x.requires_grad) == ("float32", device, False)
    assert_array_equal(x.numpy(), np.eye(3)[np.array(i)])
    assert init.one_hot(3, ndl.Tensor(np.array(i, dtype), device=device), dtype="float64").dtype == "float64"


def test_a_draw_that_equals_p_is_true(monkeypatch, device):
    monkeypatch.setattr(np.random, "rand", lambda *shape: np.full(shape, 0.3))
    assert init.randb(4, p=0.3, device=device).numpy().all()
    assert not init.randb(4, p=0.29, device=device).numpy().any()


def test_pinned_sums(device):
    """The figures come from NumPy's legacy stream, which is fixed for good."""
    np.random.seed(0)
    weight = init.kaiming_uniform(16 * 9, 8 * 9, shape=(3, 3, 16, 8), device=device)
    assert_allclose(weight.numpy().sum(), -2.5719218, rtol=1e-4)
    assert abs(weight.numpy()).max() <= math.sqrt(6 / 144)  # the bound depends on fan_in, not on the shape


def test_the_default_device_is_the_cpu():
    assert init.ones(1).device == init.rand(1).device == ndl.cpu() == ndl.Tensor([1.0]).device
