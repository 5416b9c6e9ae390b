"""Dropout of elements and of channels: draws, masks, modules, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from needle.backend import to_host
from tests.nn.functional.alike import check_signature, normal, raises

# (function, shape of x, shape of the draws)
ROWS = [
    ("dropout", (4, 3), (4, 3)),
    ("dropout", (2, 3, 4, 5), (2, 3, 4, 5)),
    ("dropout1d", (4, 6, 3), (4, 6, 1)),
    ("dropout1d", (6, 3), (6, 1)),
    ("dropout2d", (4, 6, 3, 2), (4, 6, 1, 1)),
    ("dropout3d", (4, 6, 3, 2, 2), (4, 6, 1, 1, 1)),
    ("dropout3d", (6, 3, 2, 2), (6, 1, 1, 1)),
]


def draws_of(device):
    """Uniform draws for a device: shape -> host array."""
    return lambda shape: to_host(device.draws(shape))


rows = pytest.mark.parametrize(("name", "shape", "drawn"), ROWS, ids=[f"{name}{shape}" for name, shape, _ in ROWS])


@rows
@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_kept_and_what_is_drawn(name, shape, drawn, p, dtype, device):
    array = np.asarray(normal(*shape) + 3, dtype)
    x = ndl.Tensor(array, device=device)
    draw = draws_of(device)
    ndl.seed(7)
    keep, following = draw(drawn) <= 1 - p, draw(())
    ndl.seed(7)
    y = getattr(F, name)(x, p)
    assert draw(()) == following
    assert y.dtype == dtype
    expected = np.broadcast_to(keep / (1 - p), shape)
    tolerance = 1e-3 if dtype == "float16" else 1e-6
    assert_allclose(y.numpy(), array * expected, rtol=tolerance)
    (y * y).sum().backward()
    assert x.grad.dtype == dtype
    assert_allclose(x.grad.numpy(), 2 * array * expected**2, rtol=3 * tolerance)
    x.grad.sum().backward()
    assert_allclose(x.grad.numpy(), 2 * expected**2, rtol=3 * tolerance)


@rows
def test_nothing_is_drawn_in_evaluation(name, shape, drawn, device):
    x = ndl.Tensor(np.asarray(normal(*shape)), device=device)
    draw = draws_of(device)
    ndl.seed(7)
    first = draw(())
    ndl.seed(7)
    assert getattr(F, name)(x, 0.4, training=False) is x
    assert draw(()) == first


@rows
@pytest.mark.parametrize("p", [0, 1])
def test_training_draws_even_for_probability_0_and_1(name, shape, drawn, p, device):
    x = ndl.Tensor(np.asarray(normal(*shape)), device=device)
    draw = draws_of(device)
    ndl.seed(7)
    draw(drawn)
    following = draw(())
    ndl.seed(7)
    y = getattr(F, name)(x, p)
    assert draw(()) == following
    assert y is x if p == 0 else not y.numpy().any()


def test_three_axes_are_a_batch_of_lines_for_dropout2d_as_in_torch(device):
    x = ndl.ones(50, 20, 3, device=device)
    with pytest.warns(UserWarning, match=r"^dropout2d: x has 3 axes, read as \(N, C, L\)"):
        y = F.dropout2d(x).numpy()
    assert (y == y[:, :, :1]).all()
    assert {*y[:, 0, 0]} == {0, 2}


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d"])
def test_signatures_match_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))
    check_signature(getattr(nn, name.capitalize()), getattr(torch.nn, name.capitalize()))


@rows
def test_module_is_the_function_in_training_and_the_identity_in_evaluation(name, shape, drawn, device):
    layer = getattr(nn, name.capitalize())(0.3)
    twin = getattr(torch.nn, name.capitalize())(0.3)
    assert repr(layer) == repr(twin).replace(", inplace=False", "")
    x = ndl.Tensor(np.asarray(normal(*shape)), device=device)
    ndl.seed(1)
    actual = layer(x)
    ndl.seed(1)
    host = name == "dropout"  # the course's layer draws from NumPy's stream on every device
    assert_array_equal(actual.numpy(), getattr(F, name)(x.to(ndl.cpu()) if host else x, 0.3).numpy())
    assert layer.eval()(x) is x


def floats(*shape):
    return ndl.zeros(*shape)


ERRORS = [
    *(
        row
        for name, x in [("dropout", floats(2)), ("dropout1d", floats(2, 2, 2)), ("dropout2d", floats(1, 2, 2, 2)),
                        ("dropout3d", floats(1, 1, 2, 2, 2))]
        for row in [
            (
                lambda name=name, x=x: getattr(F, name)(x, 1.5), ValueError,
                f"{name}: p must lie in [0, 1], but got 1.5",
            ),
            (
                lambda name=name, x=x: getattr(F, name)(x, -0.1, training=False), ValueError,
                f"{name}: p must lie in [0, 1], but got -0.1",
            ),
            (
                lambda name=name, x=x: getattr(F, name)(x.astype("int64")), TypeError,
                f"{name}: x must have a floating dtype, but got int64",
            ),
            (
                lambda name=name: getattr(nn, name.capitalize())("half"), TypeError,
                f"{name.capitalize()}: p must be a number, but got 'half'",
            ),
        ]
    ),
    (
        lambda: F.dropout1d(floats(3)), ValueError,
        "dropout1d: x must have 3 axes, (N, C, *S), or 2, (C, *S), but got shape (3,)",
    ),
    (
        lambda: F.dropout1d(floats(1, 2, 3, 4)), ValueError,
        "dropout1d: x must have 3 axes, (N, C, *S), or 2, (C, *S), but got shape (1, 2, 3, 4)",
    ),
    (
        lambda: F.dropout2d(floats(3, 3)), ValueError,
        "dropout2d: x must have 4 axes, (N, C, H, W), but got shape (3, 3)",
    ),
    (
        lambda: F.dropout3d(floats(3, 3, 3)), ValueError,
        "dropout3d: x must have 5 axes, (N, C, *S), or 4, (C, *S), but got shape (3, 3, 3)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
