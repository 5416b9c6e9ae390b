"""Activations: against torch to second order, at kinks and extremes, as modules, and their errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import check_function, check_module, check_signature, normal, raises

X = normal(3, 4, scale=3.0)

# (function, inputs, options)
ROWS = [
    ("relu", X, {}),
    ("relu6", 2 * X, {}),
    ("leaky_relu", X, {}),
    ("leaky_relu", X, {"negative_slope": 0.3}),
    ("leaky_relu", X, {"negative_slope": -2}),
    ("elu", X, {}),
    ("elu", X, {"alpha": 0.3}),
    ("silu", X, {}),
    ("softplus", X, {}),
    ("softplus", X, {"beta": 0.5, "threshold": 1}),
    ("softplus", 10 * X, {"beta": 3.0}),
    ("sigmoid", X, {}),
    ("tanh", X, {}),
    ("hardtanh", X, {}),
    ("hardtanh", X, {"min_val": -3, "max_val": 0.5}),
    ("softmax", X, {"dim": 0}),
    ("softmax", X, {"dim": -1}),
    ("softmax", normal(2, 3, 2, 2), {"dim": 1}),
    ("softmax", normal(5), {"dim": 0}),
    ("log_softmax", X, {"dim": 0}),
    ("log_softmax", normal(2, 3, 4), {"dim": -2}),
]


def title(row):
    return f"{row[0]}-{row[2]}"


@pytest.mark.parametrize("row", ROWS, ids=map(title, ROWS))
def test_function_matches_torch(row, device):
    name, x, options = row
    check_function(name, [x], device, options=options)


@pytest.mark.parametrize("row", ROWS, ids=map(title, ROWS))
def test_function_of_no_elements(row, device):
    name, x, options = row
    assert getattr(F, name)(ndl.zeros(0, *x.shape, device=device), **options).shape == (0, *x.shape)


HIDDEN = {"softplus": {"x": inspect.Parameter.empty, "beta": 1, "threshold": 20}}


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS}))
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name), HIDDEN.get(name))


KINKS = {
    "relu": ({}, [0.0]),
    "relu6": ({}, [0.0, 6.0]),
    "leaky_relu": ({"negative_slope": 0.2}, [0.0, -0.0]),
    "elu": ({"alpha": 0.7}, [0.0]),
    "hardtanh": ({"min_val": -2.0, "max_val": 0.5}, [-2.0, 0.5]),
    "softplus": ({"threshold": 1.0}, [0.0, 1.0]),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivatives_at_kinks_match_torch(name, device):
    options, points = KINKS[name]
    x, torch_x = ndl.Tensor(points, device=device), torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y, torch_y = getattr(F, name)(x, **options), getattr(torch.nn.functional, name)(torch_x, **options)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-12)
    y.sum().backward()
    torch_y.sum().backward()
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), [(row[0], {}) for row in ROWS if "softmax" not in row[0]])
def test_large_inputs_neither_overflow_nor_warn(name, options, dtype, device):
    far = np.array([-1e30, -1e4, -100, 100, 1e4, 1e30], dtype)
    x, torch_x = ndl.Tensor(far, device=device), torch.from_numpy(far).requires_grad_()
    y, torch_y = getattr(F, name)(x, **options), getattr(torch.nn.functional, name)(torch_x, **options)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-6, atol=1e-30 if name != "sigmoid" else 1e-9)
    y.backward()
    torch_y.backward(torch.ones(6, dtype=torch_y.dtype))
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_large_and_of_missing_scores(name, device):
    scores = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1, -np.inf, 2], [1e30, -1e30, 1e30]], "float32")
    x, torch_x = ndl.Tensor(scores, device=device), torch.from_numpy(scores).requires_grad_()
    y, torch_y = getattr(F, name)(x, 1), getattr(torch.nn.functional, name)(torch_x, 1)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-6)
    (y[:, 0]).sum().backward()
    torch_y[:, 0].sum().backward()
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-7)


def test_small_inputs_stay_exact(device):
    x = ndl.Tensor(np.array([-1e-6, -1e-20], "float32"), device=device)
    assert_allclose(F.elu(x).numpy(), [-1e-6, -1e-20], rtol=1e-6)
    far = ndl.Tensor(np.array([-30.0, -80.0], "float32"), device=device)
    assert_allclose(F.softplus(far).numpy(), np.exp([-30.0, -80.0]), rtol=1e-5)


def test_softplus_beyond_its_threshold_is_the_identity(device):
    x = ndl.Tensor(np.array([9.0, 11.0]), device=device)
    y = F.softplus(x, beta=2, threshold=20)
    assert y.numpy()[1] == 11
    assert y.numpy()[0] > 9
    y.sum().backward()
    assert x.grad.numpy()[1] == 1


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 2), (2, 3, 2, 1)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_without_dim_warns_and_takes_torchs_axis(name, shape, device):
    x = normal(*shape)
    with pytest.warns(UserWarning, match=f"^{name}: dim was not passed, and axis [01] of {len(shape)} was chosen$"):
        actual = getattr(F, name)(ndl.Tensor(x, device=device))
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x))
    assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_in_another_dtype(name, device):
    x = np.array([[0, 1, 5], [2, 2, 2]])
    actual = getattr(F, name)(ndl.Tensor(x, device=device), 1, dtype="float32")
    assert_allclose(
        actual.numpy(), getattr(torch.nn.functional, name)(torch.from_numpy(x), 1, dtype=torch.float32), rtol=1e-6
    )
    assert actual.dtype == "float32"


def test_functions_that_are_ops_are_the_same_objects():
    assert (F.relu, F.sigmoid, F.tanh) == (ndl.relu, ndl.sigmoid, ndl.tanh)


# ---- modules ---------------------------------------------------------------------------------------------------------

MODULES = {
    "ReLU": lambda nn: nn.ReLU(),
    "ReLU6": lambda nn: nn.ReLU6(),
    "LeakyReLU": lambda nn: nn.LeakyReLU(),
    "LeakyReLU(0.2)": lambda nn: nn.LeakyReLU(0.2),
    "ELU": lambda nn: nn.ELU(),
    "ELU(2)": lambda nn: nn.ELU(2),
    "SiLU": lambda nn: nn.SiLU(),
    "Softplus": lambda nn: nn.Softplus(),
    "Softplus(2, 1)": lambda nn: nn.Softplus(2, threshold=1),
    "Sigmoid": lambda nn: nn.Sigmoid(),
    "Tanh": lambda nn: nn.Tanh(),
    "Hardtanh": lambda nn: nn.Hardtanh(),
    "Hardtanh(-2, 3.5)": lambda nn: nn.Hardtanh(-2, 3.5),
    "Softmax": lambda nn: nn.Softmax(dim=1),
    "LogSoftmax": lambda nn: nn.LogSoftmax(-1),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_module_matches_torch(make, device):
    check_module(make, [2 * X], device)


@pytest.mark.parametrize("name", sorted({name.partition("(")[0] for name in MODULES} - {"Sigmoid", "Tanh"}))
def test_signature_of_module_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


def test_softmax_modules_without_dim(device):
    assert repr(nn.Softmax()) == repr(torch.nn.Softmax()) == "Softmax(dim=None)"
    with pytest.warns(UserWarning, match="dim was not passed"):
        assert_array_equal(nn.Softmax()(ndl.zeros(2, 4, device=device)).numpy(), np.full((2, 4), 0.25))


# ---- errors ----------------------------------------------------------------------------------------------------------

INTEGERS = ndl.Tensor([[1, 2]])
FLOATS = ndl.Tensor([[1.0, 2.0]])

ERRORS = [
    *(
        (
            lambda name=name: getattr(F, name)(INTEGERS), TypeError,
            f"{name}: x must have a floating dtype, but got int64",
        )
        for name in ("relu6", "leaky_relu", "elu", "silu", "softplus", "hardtanh")
    ),
    (lambda: F.softmax(INTEGERS, 1), TypeError, "softmax: x must have a floating dtype, but got int64"),
    (lambda: F.log_softmax(INTEGERS, 1), TypeError, "log_softmax: x must have a floating dtype, but got int64"),
    (lambda: F.softmax(FLOATS, 2), ValueError, "softmax: dim must lie in [-2, 1], but got 2"),
    (lambda: F.log_softmax(FLOATS, -3), ValueError, "log_softmax: dim must lie in [-2, 1], but got -3"),
    (lambda: F.softmax(FLOATS, 0.5), TypeError, "softmax: dim must be an integer, but got 0.5"),
    (lambda: F.softmax(ndl.Tensor(1.0), 0), ValueError, "softmax: x must have at least 1 axis, but got shape ()"),
    (lambda: F.leaky_relu(FLOATS, "a"), TypeError, "leaky_relu: negative_slope must be a number, but got 'a'"),
    (lambda: F.elu(FLOATS, None), TypeError, "elu: alpha must be a number, but got None"),
    (lambda: F.softplus(FLOATS, 0), ValueError, "softplus: beta must lie in (0, inf], but got 0"),
    (lambda: F.softplus(FLOATS, 1, "x"), TypeError, "softplus: threshold must be a number, but got 'x'"),
    (lambda: F.hardtanh(FLOATS, 1, 0), ValueError, "hardtanh: min_val must not exceed max_val, but got 1 and 0"),
    (lambda: F.hardtanh(FLOATS, "a"), TypeError, "hardtanh: min_val must be a number, but got 'a'"),
    (lambda: nn.Hardtanh(1, 1), ValueError, "Hardtanh: max_val must lie in (1.0, inf], but got 1"),
    (lambda: nn.Softplus(-1), ValueError, "Softplus: beta must lie in (0, inf], but got -1"),
    (lambda: nn.Softplus(1, None), TypeError, "Softplus: threshold must be a number, but got None"),
    (lambda: nn.ELU("a"), TypeError, "ELU: alpha must be a number, but got 'a'"),
    (lambda: nn.LeakyReLU(None), TypeError, "LeakyReLU: negative_slope must be a number, but got None"),
    (lambda: nn.Softmax("a"), TypeError, "Softmax: dim must be an integer, but got 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
