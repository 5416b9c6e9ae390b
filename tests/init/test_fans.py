"""Initializers that scale with fans: bounds, deviations, and the fans of convolutions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import needle as ndl
from needle import init
from tests.init.alike import expect

pytestmark = pytest.mark.usefixtures("on_device")

ROOT2 = math.sqrt(2)
UNIFORM = {
    "xavier": (lambda: init.xavier_uniform(30, 50), math.sqrt(6 / 80), (30, 50)),
    "xavier, gain": (lambda: init.xavier_uniform(30, 50, gain=2.5), 2.5 * math.sqrt(6 / 80), (30, 50)),
    "xavier, shape": (lambda: init.xavier_uniform(9, 11, shape=(5, 7)), math.sqrt(6 / 20), (5, 7)),
    "kaiming": (lambda: init.kaiming_uniform(30, 50), ROOT2 * math.sqrt(3 / 30), (30, 50)),
    "kaiming, shape": (lambda: init.kaiming_uniform(8, 6, shape=(5, 7, 2)), ROOT2 * math.sqrt(3 / 8), (5, 7, 2)),
    "kaiming, relu": (lambda: init.kaiming_uniform(9, 11, nonlinearity="relu"), ROOT2 * math.sqrt(3 / 9), (9, 11)),
    "kaiming, linear": (lambda: init.kaiming_uniform(9, 11, nonlinearity="linear"), math.sqrt(3 / 9), (9, 11)),
    "kaiming, tanh": (lambda: init.kaiming_uniform(9, 11, nonlinearity="tanh"), 5 / 3 * math.sqrt(3 / 9), (9, 11)),
    "kaiming, sigmoid": (lambda: init.kaiming_uniform(9, 11, nonlinearity="sigmoid"), math.sqrt(3 / 9), (9, 11)),
}
NORMAL = {
    "xavier": (lambda: init.xavier_normal(30, 50), math.sqrt(2 / 80), (30, 50)),
    "xavier, gain": (lambda: init.xavier_normal(30, 50, gain=2.5), 2.5 * math.sqrt(2 / 80), (30, 50)),
    "xavier, shape": (lambda: init.xavier_normal(9, 11, shape=(5, 7)), math.sqrt(2 / 20), (5, 7)),
    "kaiming": (lambda: init.kaiming_normal(30, 50), ROOT2 / math.sqrt(30), (30, 50)),
    "kaiming, shape": (lambda: init.kaiming_normal(8, 6, shape=(5, 7, 2)), ROOT2 / math.sqrt(8), (5, 7, 2)),
    "kaiming, linear": (lambda: init.kaiming_normal(9, 11, nonlinearity="linear"), 1 / 3, (9, 11)),
}


@pytest.mark.parametrize("case", UNIFORM)
def test_uniform_bounds(case):
    function, bound, shape = UNIFORM[case]
    x = function()
    np.random.seed(0)
    expect(x, (2 * np.random.rand(*shape) - 1) * bound)


@pytest.mark.parametrize("case", NORMAL)
def test_normal_deviations(case):
    function, std, shape = NORMAL[case]
    x = function()
    np.random.seed(0)
    expect(x, np.random.randn(*shape) * std)


@pytest.mark.parametrize("fan", [10, 1000])
def test_variances_match_the_papers(fan):
    """Glorot: 2 / (fan_in + fan_out) (eq. 12, 16). He: 2 / fan_in (eq. 10)."""
    size = 200_000 // fan
    for function in (init.xavier_uniform, init.xavier_normal):
        x = function(fan, size).numpy()
        assert x.var() == pytest.approx(2 / (fan + size), rel=0.03)
        assert abs(x.mean()) < 4 * x.std() / math.sqrt(x.size)
    for function in (init.kaiming_uniform, init.kaiming_normal):
        assert function(fan, size).numpy().var() == pytest.approx(2 / fan, rel=0.03)


def test_golden_value():
    np.random.seed(0)
    x = init.kaiming_uniform(144, 72, shape=(3, 3, 16, 8))
    assert x.shape == (3, 3, 16, 8)
    assert float(x.numpy().sum(dtype="float64")) == pytest.approx(-2.5719218, abs=2e-5)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((8, 3, 5, 5), (75, 200)), ((8, 3, 5), (15, 40)), ((4, 2, 1, 2, 3), (12, 24)), ([6, 1, 3, 3], (9, 54))],
)
def test_fans_of_convolution_weights(shape, fans):
    assert init.conv_fans(shape) == fans


def test_a_layer_keeps_the_variance_of_its_input():
    """The purpose of the fans: layers of kaiming_uniform and relu preserve the mean square."""
    x = init.randn(500, 400, dtype="float64")
    for _ in range(5):
        x = ndl.relu(x @ init.kaiming_uniform(400, 400, dtype="float64"))
    assert float((x * x).mean()) == pytest.approx(1, rel=0.5)
