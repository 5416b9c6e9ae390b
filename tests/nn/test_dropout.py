"""Dropout: its draws, the elements it keeps, its two modes, its errors."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import nn
from tests.nn.compare import normal, tensor
from tests.nn.functional.alike import raises


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_where_a_draw_is_at_most_1_minus_p_and_scales(p, device):
    x = normal(40, 30, dtype="float32")
    np.random.seed(5)
    keep = np.random.rand(40, 30) <= 1 - p
    next_draw = np.random.rand()
    np.random.seed(5)
    leaf = tensor(x, device)
    y = nn.Dropout(p)(leaf)
    assert np.random.rand() == next_draw
    np.testing.assert_allclose(y.numpy(), np.where(keep, x / np.float32(1 - p), 0), rtol=1e-6, strict=True)
    y.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), keep / np.float32(1 - p), rtol=1e-6)


def test_dropout_keeps_a_draw_that_is_exactly_1_minus_p(monkeypatch, device):
    draws = np.array([0.5, np.nextafter(0.5, 1), 0.0])
    monkeypatch.setattr(np.random, "rand", lambda *shape: draws.reshape(shape))
    assert nn.Dropout(0.5)(ndl.ones(3, device=device)).numpy().tolist() == [2, 0, 2]


def test_dropout_draws_a_new_mask_for_each_batch(device):
    layer, x = nn.Dropout(0.5), ndl.ones(100, device=device)
    assert layer(x).numpy().tolist() != layer(x).numpy().tolist()


def test_dropout_in_evaluation_is_the_identity_and_draws_nothing(device):
    layer, x = nn.Dropout(0.9).eval(), ndl.ones(3, device=device)
    state = np.random.get_state()
    assert layer(x) is x
    np.testing.assert_equal(np.random.get_state(), state)


@pytest.mark.parametrize(("p", "scale"), [(0, 1), (1, 0)])
def test_dropout_with_probability_0_and_1(p, scale, device):
    x = tensor(normal(5, 4), device)
    y = nn.Dropout(p)(x)
    np.testing.assert_array_equal(y.numpy(), x.numpy() * scale)
    (y * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy() * scale)


# ---- errors ----------------------------------------------------------------------------------------------------------


ERRORS = [
    (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must lie in [0, 1], but got 1.5"),
    (lambda: nn.Dropout(float("nan")), ValueError, "Dropout: p must lie in [0, 1], but got nan"),
    (lambda: nn.Dropout("half"), TypeError, "Dropout: p must be a number, but got 'half'"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
