"""Norms without centring against torch: results, derivatives to second order, layers and errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import check_function, check_module, check_signature, normal, raises

HINT = '; .astype("float32") converts'  # where float32 meets float64

NEEDED = inspect.Parameter.empty

# function, inputs, options, names of the last inputs
ROWS = [
    ("rms_norm", [normal(4, 3)], {"normalized_shape": (3,)}, ()),
    ("rms_norm", [normal(4, 3), normal(3, seed=1)], {"normalized_shape": (3,)}, ("weight",)),
    ("rms_norm", [normal(2, 3, 4), normal(3, 4, seed=1)], {"normalized_shape": [3, 4], "eps": 0.5}, ("weight",)),
    ("rms_norm", [normal(5)], {"normalized_shape": (5,), "eps": 0}, ()),
    ("local_response_norm", [normal(2, 5, 4)], {"size": 3}, ()),
    ("local_response_norm", [normal(2, 5, 3, 2)], {"size": 2, "alpha": 0.5, "beta": 1.5, "k": 2.0}, ()),
    ("local_response_norm", [normal(2, 3, 2, 2, 2)], {"size": 4, "alpha": 1.0}, ()),
    ("local_response_norm", [normal(1, 2, 3)], {"size": 9, "alpha": 1.0, "beta": 0.5}, ()),
]


@pytest.mark.parametrize(("name", "inputs", "options", "names"), ROWS)
def test_function_matches_torch(name, inputs, options, names, device):
    check_function(name, inputs, device, options=options, names=names)


@pytest.mark.parametrize("name", ["rms_norm", "local_response_norm"])
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


def test_one_size_may_be_an_integer(device):
    x = ndl.Tensor(normal(2, 3), device=device)
    assert (F.rms_norm(x, 3).numpy() == F.rms_norm(x, (3,)).numpy()).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_the_default_eps_is_torchs(dtype, size, device):
    """float16 is computed in float32, with its eps; 300² exceeds float16."""
    x = (normal(2, 3) * size).astype(dtype)
    y = F.rms_norm(ndl.Tensor(x, device=device), 3)
    assert y.dtype == dtype
    assert_allclose(y.numpy(), torch.nn.functional.rms_norm(torch.tensor(x), (3,)).numpy(), rtol=2e-3)
    z = F.local_response_norm(ndl.Tensor(x[None], device=device), 2)
    assert z.dtype == dtype
    expected = torch.nn.functional.local_response_norm(torch.tensor(x[None]).double(), 2)
    assert_allclose(z.numpy(), expected.numpy(), rtol=2e-3)


def test_rms_norm_of_many_terms_is_as_exact_as_torchs(device):
    x = np.random.default_rng(0).random((3, 200_000), "float32")
    expected = x / np.sqrt((x.astype("float64") ** 2).mean(1, keepdims=True))
    theirs = torch.nn.functional.rms_norm(torch.tensor(x), x.shape[1:])
    results = F.rms_norm(ndl.Tensor(x, device=device), x.shape[1]), theirs
    mine, theirs = (np.abs(y.numpy() - expected).max() for y in results)
    assert mine <= max(theirs, 5e-7)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_elements(shape, device):
    assert F.rms_norm(ndl.ones(*shape, device=device), 3).shape == shape
    assert F.local_response_norm(ndl.ones(*shape, 4, device=device), 2).shape == (*shape, 4)


def test_float32_weights_with_float16(device):
    y = F.rms_norm(ndl.ones(2, 3, device=device, dtype="float16"), 3, ndl.ones(3, device=device) * 2)
    assert (y.dtype, y.numpy().tolist()) == ("float16", [[2, 2, 2]] * 2)


# ---- modules ---------------------------------------------------------------------------------------------------------

MODULES = {
    "RMSNorm(3)": (lambda nn: nn.RMSNorm(3), (4, 3)),
    "RMSNorm((2, 3))": (lambda nn: nn.RMSNorm((2, 3), 1e-3, False), (4, 2, 3)),
    "LocalResponseNorm(2)": (lambda nn: nn.LocalResponseNorm(2), (4, 3, 5)),
    "LocalResponseNorm(options)": (lambda nn: nn.LocalResponseNorm(3, 1e-2, 0.5, k=2), (4, 3, 5, 2)),
}


@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
def test_module_matches_torch(make, shape, device):
    check_module(make, [normal(*shape)], device)


@pytest.mark.parametrize("name", ["RMSNorm", "LocalResponseNorm"])
def test_signature_of_module_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


# ---- errors ----------------------------------------------------------------------------------------------------------

X = ndl.ones(2, 3)
IMAGE = ndl.ones(1, 3, 4)
LRN = "local_response_norm"

ERRORS = [
    (lambda: F.rms_norm(X, ()), ValueError, "rms_norm: normalized_shape must have at least 1 axis, but got ()"),
    (lambda: F.rms_norm(X, 2), ValueError, "rms_norm: x must end in the axes (2,), but got shape (2, 3)"),
    (lambda: F.rms_norm(ndl.ones(), 2), ValueError, "rms_norm: x must end in the axes (2,), but got shape ()"),
    (
        lambda: F.rms_norm(X, 3, ndl.ones(2)), ValueError,
        "rms_norm: weight must have shape (3,) for x (2, 3), but got (2,)",
    ),
    (lambda: F.rms_norm(ndl.Tensor([1, 2]), 2), TypeError, "rms_norm: x must have a floating dtype, but got int64"),
    (
        lambda: F.rms_norm(X, 3, ndl.ones(3, dtype="float64")), TypeError,
        "rms_norm: x and weight must have one floating dtype, but got float32 and float64" + HINT,
    ),
    (lambda: F.rms_norm(X, 3, eps="a"), TypeError, "rms_norm: eps must be a number, but got 'a'"),
    (lambda: F.rms_norm(X, 3, eps=-1), ValueError, "rms_norm: eps must lie in [0, inf], but got -1"),
    (lambda: F.rms_norm(X, 1.5), TypeError, "rms_norm: normalized_shape must be an integer, but got 1.5"),
    (lambda: nn.RMSNorm(0), ValueError, "RMSNorm: normalized_shape must be at least 1, but got 0"),
    (lambda: nn.RMSNorm(3, elementwise_affine=1), TypeError, "RMSNorm: elementwise_affine must be a bool, but got int"),
    (lambda: F.local_response_norm(X, 2), ValueError,
     f"{LRN}: x must have at least 3 axes, (N, C, L, …), but got shape (2, 3)"),
    (lambda: F.local_response_norm(IMAGE, 0), ValueError, f"{LRN}: size must be at least 1, but got 0"),
    (lambda: F.local_response_norm(IMAGE, 2.5), TypeError, f"{LRN}: size must be an integer, but got 2.5"),
    (
        lambda: F.local_response_norm(IMAGE.astype("int64"), 2), TypeError,
        f"{LRN}: x must have a floating dtype, but got int64",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
