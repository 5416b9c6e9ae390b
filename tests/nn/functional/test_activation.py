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

HINT = '; .astype("float32") converts'  # where float32 meets float64

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
    ("softmin", X, {"dim": 0}),
    ("softmin", normal(2, 3, 2, 2), {"dim": 1}),
    ("gelu", X, {}),
    ("gelu", X, {"approximate": "tanh"}),
    ("selu", X, {}),
    ("celu", X, {}),
    ("celu", X, {"alpha": 0.5}),
    ("celu", X, {"alpha": -2}),
    ("mish", X, {}),
    ("hardswish", 2 * X, {}),
    ("hardsigmoid", 2 * X, {}),
    ("softsign", X, {}),
    ("logsigmoid", X, {}),
    ("softshrink", X, {}),
    ("softshrink", X, {"lambd": 2}),
    ("softshrink", X, {"lambd": 0}),
    ("hardshrink", X, {}),
    ("hardshrink", X, {"lambd": -1}),
    ("tanhshrink", X, {}),
    ("threshold", X, {"threshold": -1.5, "value": 0.25}),
    ("glu", X, {}),
    ("glu", normal(2, 4, 3), {"dim": 1}),
]

# For functions without a second derivative in torch.
ORACLES = {"hardsigmoid": lambda x: torch.nn.functional.relu6(x + 3) / 6}


def title(row):
    return f"{row[0]}-{row[2]}"


@pytest.mark.parametrize("row", ROWS, ids=map(title, ROWS))
def test_function_matches_torch(row, device):
    name, x, options = row
    check_function(name, [x], device, options=options, oracle=ORACLES.get(name))


@pytest.mark.parametrize("row", ROWS, ids=map(title, ROWS))
def test_function_of_no_elements(row, device):
    name, x, options = row
    expected = getattr(torch.nn.functional, name)(torch.zeros(0, *x.shape), **options)
    assert getattr(F, name)(ndl.zeros(0, *x.shape, device=device), **options).shape == expected.shape


NEEDED = inspect.Parameter.empty
HIDDEN = {
    "softplus": {"x": NEEDED, "beta": 1, "threshold": 20},
    "gelu": {"x": NEEDED, "approximate": "none"},
    "logsigmoid": {"x": NEEDED},
    "softshrink": {"x": NEEDED, "lambd": 0.5},
    "hardshrink": {"x": NEEDED, "lambd": 0.5},
    "prelu": {"x": NEEDED, "weight": NEEDED},
}


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS} | {"prelu"}))
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name), HIDDEN.get(name))


KINKS = {
    "relu": ({}, [0.0]),
    "relu6": ({}, [0.0, 6.0]),
    "leaky_relu": ({"negative_slope": 0.2}, [0.0, -0.0]),
    "elu": ({"alpha": 0.7}, [0.0]),
    "hardtanh": ({"min_val": -2.0, "max_val": 0.5}, [-2.0, 0.5]),
    "softplus": ({"threshold": 1.0}, [0.0, 1.0]),
    "gelu": ({}, [0.0]),
    "selu": ({}, [0.0]),
    "celu": ({"alpha": 0.5}, [0.0]),
    "hardswish": ({}, [-3.0, 3.0]),
    "hardsigmoid": ({}, [-3.0, 3.0]),
    "softsign": ({}, [0.0]),
    "softshrink": ({"lambd": 0.75}, [-0.75, 0.0, 0.75]),
    "hardshrink": ({"lambd": 0.75}, [-0.75, 0.0, 0.75]),
    "threshold": ({"threshold": 0.5, "value": -2.0}, [0.5]),
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


SPLITTING = {"softmax", "log_softmax", "softmin", "glu"}  # these mix elements
NEEDED_OPTIONS = {"threshold": {"threshold": 1.0, "value": 2.0}}
FAR = [(name, NEEDED_OPTIONS.get(name, {})) for name in sorted({row[0] for row in ROWS} - SPLITTING)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), FAR)
def test_large_inputs_neither_overflow_nor_warn(name, options, dtype, device):
    far = np.array([-1e30, -1e4, -100, 100, 1e4, 1e30], dtype)
    x, torch_x = ndl.Tensor(far, device=device), torch.from_numpy(far).requires_grad_()
    y, torch_y = getattr(F, name)(x, **options), getattr(torch.nn.functional, name)(torch_x, **options)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-6, atol=1e-30 if name != "sigmoid" else 1e-9)
    y.backward()
    torch_y.backward(torch.ones(6, dtype=torch_y.dtype))
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-9)


# ---- prelu -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "weights"), [((3, 4), 1), ((3, 4), 4), ((2, 3, 2, 2), 3), ((2, 3, 4), 1), ((5,), 1), ((), 1), ((2, 1), 1)]
)
def test_prelu_matches_torch(shape, weights, device):
    x = normal(*shape, scale=2.0) if shape else np.array(-1.5)
    check_function("prelu", [x, normal(weights, seed=1)], device)


def test_the_derivatives_of_prelu_at_zero_match_torch(device):
    x, w = np.array([[0.0, -0.0], [np.inf, -2.0]]), np.array([0.5, -3.0])
    mine, theirs = ([make(a) for a in (x, w)] for make in (
        lambda a: ndl.Tensor(a, device=device), lambda a: torch.tensor(a, requires_grad=True)
    ))  # fmt: skip
    F.prelu(*mine).sum().backward()
    torch.nn.functional.prelu(*theirs).sum().backward()
    for leaf, reference in zip(mine, theirs, strict=True):
        assert_array_equal(leaf.grad.numpy(), reference.grad.numpy())


def test_prelu_takes_a_weight_without_axes(device):
    y = F.prelu(ndl.Tensor([-2.0, 3.0], device=device), ndl.Tensor(0.5, device=device))
    assert y.numpy().tolist() == [-1, 3]


# ---- softmax ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_large_and_of_missing_scores(name, device):
    scores = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1, -np.inf, 2], [1e30, -1e30, 1e30]], "float32")
    x, torch_x = ndl.Tensor(scores, device=device), torch.from_numpy(scores).requires_grad_()
    y, torch_y = getattr(F, name)(x, 1), getattr(torch.nn.functional, name)(torch_x, 1)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-6)
    (y[:, 0]).sum().backward()
    torch_y[:, 0].sum().backward()
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("elu", {}), ("selu", {}), ("celu", {}), ("gelu", {"approximate": "tanh"}), ("logsigmoid", {}), ("mish", {})],
)
def test_tails_keep_their_digits(name, options, dtype, device):
    """Where the value nears a constant, and the derivative 0: 1 + (e ** x - 1) would lose all digits of e ** x."""
    points = np.linspace(-9, -3, 40).astype(dtype)
    x, twin = ndl.Tensor(points, device=device), torch.tensor(points.astype("float64"), requires_grad=True)
    y, expected = getattr(F, name)(x, **options), getattr(torch.nn.functional, name)(twin, **options)
    y.backward(ndl.ones(40, device=device, dtype=dtype))
    expected.sum().backward()
    bounds = {"rtol": 1e-5} if dtype == "float32" else {"rtol": 2e-3, "atol": 1e-7}
    if (name, dtype) == ("gelu", "float32"):
        bounds = {"rtol": 1e-5, "atol": 1e-12}  # the double's own 1 + tanh is no more exact
    assert_allclose(y.numpy(), expected.detach().numpy(), **bounds)
    assert_allclose(x.grad.numpy(), twin.grad.numpy(), **bounds)


@pytest.mark.parametrize("name", [name for name, _ in FAR if name not in ("softsign", "gelu")])
def test_infinities_match_torch(name, device):
    options = NEEDED_OPTIONS.get(name, {})
    for sign in (1, -1):
        point = np.array([sign * np.inf])
        x, twin = ndl.Tensor(point, device=device), torch.tensor(point, requires_grad=True)
        with np.errstate(invalid="ignore"):
            y, expected = getattr(F, name)(x, **options), getattr(torch.nn.functional, name)(twin, **options)
            y.backward()
        expected.backward()
        if np.isnan(expected.item()):
            assert y.item() == 0 or np.isnan(y.item())
        else:
            assert_array_equal(y.numpy(), expected.detach().numpy())
            assert_array_equal(x.grad.numpy(), twin.grad.numpy())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
@pytest.mark.parametrize(
    ("name", "options"), [("relu6", ()), ("hardtanh", (0, 4.7)), ("threshold", (1.5, 2.7)), ("threshold", (0, 5))]
)
def test_integers_stay_integers_as_in_torch(name, options, dtype, device):
    x = np.array([0, 1, 2, 5, 9, 100], dtype)
    y = getattr(F, name)(ndl.Tensor(x, device=device, requires_grad=False), *options)
    expected = getattr(torch.nn.functional, name)(torch.tensor(x), *options)
    assert y.dtype == dtype
    assert_array_equal(y.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["softsign", "tanhshrink"])
def test_integers_become_float32_as_in_torch(name, device):
    x = np.array([-3, 0, 1, 9])
    y, expected = getattr(F, name)(ndl.Tensor(x, device=device)), getattr(torch.nn.functional, name)(torch.tensor(x))
    assert y.dtype == "float32"
    assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)


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
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax_without_dim_warns_and_takes_torchs_axis(name, shape, device):
    x = normal(*shape)
    with pytest.warns(UserWarning, match=f"^{name}: dim was not passed, and axis [01] of {len(shape)} was chosen$"):
        actual = getattr(F, name)(ndl.Tensor(x, device=device))
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x))
    assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
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
    "Softmin": lambda nn: nn.Softmin(0),
    "GELU": lambda nn: nn.GELU(),
    "GELU(tanh)": lambda nn: nn.GELU("tanh"),
    "SELU": lambda nn: nn.SELU(),
    "CELU": lambda nn: nn.CELU(),
    "CELU(2)": lambda nn: nn.CELU(2),
    "Mish": lambda nn: nn.Mish(),
    "Hardswish": lambda nn: nn.Hardswish(),
    "Hardsigmoid": lambda nn: nn.Hardsigmoid(),
    "Softsign": lambda nn: nn.Softsign(),
    "LogSigmoid": lambda nn: nn.LogSigmoid(),
    "Softshrink": lambda nn: nn.Softshrink(),
    "Softshrink(0.1)": lambda nn: nn.Softshrink(0.1),
    "Hardshrink": lambda nn: nn.Hardshrink(),
    "Hardshrink(2)": lambda nn: nn.Hardshrink(2),
    "Tanhshrink": lambda nn: nn.Tanhshrink(),
    "Threshold(0.1, 20)": lambda nn: nn.Threshold(0.1, 20),
    "GLU": lambda nn: nn.GLU(),
    "GLU(1)": lambda nn: nn.GLU(1),
    "PReLU": lambda nn: nn.PReLU(),
    "PReLU(4)": lambda nn: nn.PReLU(num_parameters=4, init=0.1),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_module_matches_torch(make, device):
    check_module(make, [2 * X], device)


# Modules whose signature in torch is that of every Module.
NO_ARGUMENTS = {"LogSigmoid", "Sigmoid", "Softsign", "Tanh", "Tanhshrink"}


@pytest.mark.parametrize("name", sorted({name.partition("(")[0] for name in MODULES} - NO_ARGUMENTS))
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
        for name in (
            "leaky_relu", "elu", "silu", "softplus", "gelu", "selu", "celu", "mish", "hardswish",
            "hardsigmoid", "logsigmoid", "softshrink", "hardshrink", "glu",
        )
    ),
    *(
        (
            lambda name=name, options=options: getattr(F, name)(ndl.Tensor([True]), *options), TypeError,
            f"{name}: x must have a floating dtype, but got bool",
        )
        for name, options in (
            ("relu6", ()), ("hardtanh", ()), ("threshold", (1, 2)), ("softsign", ()), ("tanhshrink", ()),
        )
    ),
    (
        lambda: F.hardtanh(ndl.Tensor(np.array([1], "uint8"))), ValueError,
        "hardtanh: limits must lie in the range of uint8, but got -1.0, 1.0",
    ),
    (
        lambda: F.threshold(ndl.Tensor(np.array([1], "int8")), 0, 128), ValueError,
        "threshold: numbers must lie in the range of int8, but got 0.0, 128.0",
    ),
    (lambda: F.softmin(INTEGERS, 1), TypeError, "softmin: x must have a floating dtype, but got int64"),
    (lambda: F.softmin(FLOATS, 2), ValueError, "softmin: dim must lie in [-2, 1], but got 2"),
    (
        lambda: F.gelu(FLOATS, "erf"), ValueError, "gelu: approximate must be one of 'none', 'tanh', but got 'erf'",
    ),
    (lambda: F.celu(FLOATS, 0), ValueError, "celu: alpha must not be 0, but got 0"),
    (lambda: F.celu(FLOATS, "a"), TypeError, "celu: alpha must be a number, but got 'a'"),
    (lambda: F.softshrink(FLOATS, -0.5), ValueError, "softshrink: lambd must lie in [0, inf], but got -0.5"),
    (lambda: F.hardshrink(FLOATS, None), TypeError, "hardshrink: lambd must be a number, but got None"),
    (lambda: F.threshold(FLOATS, "a", 1), TypeError, "threshold: threshold must be a number, but got 'a'"),
    (lambda: F.threshold(FLOATS, 1, "a"), TypeError, "threshold: value must be a number, but got 'a'"),
    (lambda: F.glu(ndl.ones(2, 3)), ValueError, "glu: x must have an even size along axis 1, but got shape (2, 3)"),
    (lambda: F.glu(ndl.Tensor(1.0)), ValueError, "glu: dim must lie in [0, -1], but got -1"),
    (lambda: F.glu(FLOATS, 0.5), TypeError, "glu: dim must be an integer, but got 0.5"),
    (
        lambda: F.prelu(ndl.ones(2, 3), ndl.ones(2)), ValueError,
        "prelu: weight must hold 1 number or 3, one per channel, but got (2,)",
    ),
    (
        lambda: F.prelu(ndl.ones(3), ndl.ones(3)), ValueError,
        "prelu: weight must hold 1 number or 1, one per channel, but got (3,)",
    ),
    (
        lambda: F.prelu(ndl.ones(2, 3), ndl.ones(1, 3)), ValueError,
        "prelu: weight must hold 1 number or 3, one per channel, but got (1, 3)",
    ),
    (
        lambda: F.prelu(FLOATS, ndl.ones(1)), TypeError,
        "prelu: x and weight must have one floating dtype, but got float64 and float32" + HINT,
    ),
    (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1, but got 0"),
    (lambda: nn.PReLU(1, "a"), TypeError, "PReLU: init must be a number, but got 'a'"),
    (lambda: F.softmax(INTEGERS, 1, 3), TypeError, "softmax: dtype must be one of real numbers or bools, but got 3"),
    (lambda: F.softmax(INTEGERS, 1), TypeError, "softmax: x must have a floating dtype, but got int64"),
    (lambda: F.log_softmax(INTEGERS, 1), TypeError, "log_softmax: x must have a floating dtype, but got int64"),
    (lambda: F.softmax(FLOATS, 2), ValueError, "softmax: dim must lie in [-2, 1], but got 2"),
    (lambda: F.log_softmax(FLOATS, -3), ValueError, "log_softmax: dim must lie in [-2, 1], but got -3"),
    (lambda: F.softmax(FLOATS, 0.5), TypeError, "softmax: dim must be an integer, but got 0.5"),
    (lambda: F.softmax(ndl.Tensor(1.0), 1), ValueError, "softmax: dim must lie in [-1, 0], but got 1"),
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
