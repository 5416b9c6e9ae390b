"""Compare needle's functions and modules with torch's of the same names."""

from __future__ import annotations

import inspect
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.ops.derivatives import assert_like_torch

torch.set_num_threads(1)  # the arrays are too small for threads

# torch's argument names and ours, and torch's arguments that needle does not have.
RENAMED = {"input": "x", "tensor": "x", "input1": "x1", "input2": "x2"}
LEFT_OUT = {"_stacklevel", "inplace", "max_norm", "norm_type", "out", "reduce", "scale_grad_by_freq", "size_average"}
LEFT_OUT |= {"_freeze", "_weight", "enable_gqa", "max_value", "min_value", "sparse"}


def normal(*shape, seed=0, scale=1.0):
    """Normal draws from a separate generator, so other tests do not change them."""
    return np.random.default_rng([seed, *shape]).normal(scale=scale, size=shape)


def unit(*shape, seed=0):
    """Uniform draws in [0.05, 0.95)."""
    return np.random.default_rng([seed, *shape]).uniform(0.05, 0.95, shape)


def both(constant, device):
    """A host array as a constant in needle and in torch."""
    return ndl.Tensor(constant, device=device, requires_grad=False), torch.from_numpy(np.asarray(constant))


def check_function(name, arrays, device, constants=(), options=None, *, names=(), rtol=1e-10, oracle=None):
    """Compare F.name(*arrays, *constants, **options) with torch's: to second order, in float32, and in float16.

    Arrays among the options become tensors; floats take the dtype of `arrays`. The last arrays are passed as arguments
    called `names`. Where torch's function has no second derivative, `oracle` is one that has, with the same result and
    first derivatives.
    """
    results = {}
    reference = getattr(torch.nn.functional, name)
    if oracle is not None:
        check_oracle(oracle, reference, arrays, constants, options or {})
        reference = oracle
    for dtype, tolerance in ("float64", rtol), ("float32", 2e-4), ("float16", None):
        pairs = [both(as_dtype(c, dtype), device) for c in constants]
        keywords = {
            key: both(as_dtype(value, dtype), device) if isinstance(value, np.ndarray) else (value, value)
            for key, value in (options or {}).items()
        }

        def function(*x, constants=pairs, keywords=keywords):
            named = {key: mine for key, (mine, _) in keywords.items()}
            named |= zip(names, x[len(x) - len(names) :], strict=True)
            x = x[: len(x) - len(names)]
            return getattr(F, name)(*x, *(mine for mine, _ in constants), **named)

        def torch_function(*x, constants=pairs, keywords=keywords):
            named = {key: theirs for key, (_, theirs) in keywords.items()}
            named |= zip(names, x[len(x) - len(names) :], strict=True)
            x = x[: len(x) - len(names)]
            return reference(*x, *(theirs for _, theirs in constants), **named)

        inputs = [array.astype(dtype) for array in arrays]
        if tolerance is not None:
            assert_like_torch(function, torch_function, inputs, device, rtol=tolerance, atol=min(1e-5, tolerance))
        leaves = [ndl.Tensor(array, device=device) for array in inputs]
        results[dtype] = function(*leaves)
        results[dtype].sum().backward()
        assert all(x.grad.dtype == dtype for x in leaves)
    assert results["float16"].dtype == "float16"
    assert_allclose(results["float16"].numpy(), results["float64"].numpy(), rtol=2e-2, atol=2e-2)


def check_oracle(oracle, function, arrays, constants, options):
    """Compare an oracle with the function of torch that it stands for: result and first derivatives."""
    constants = [torch.from_numpy(np.asarray(c)) for c in constants]
    options = {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in options.items()}
    results = []
    for call in (oracle, function):
        leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
        y = call(*leaves, *constants, **options)
        results.append([y, *torch.autograd.grad(y, leaves, torch.ones_like(y))])
    for mine, theirs in zip(*results, strict=True):
        assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-7, atol=1e-12)


@contextmanager
def default(device):
    """Make `device` the default device."""
    before = ndl.default_device()
    ndl.set_default_device(device)
    yield
    ndl.set_default_device(before)


def as_dtype(array, dtype):
    return array.astype(dtype) if array.dtype.kind == "f" else array


def check_signature(mine, theirs, hidden=None):
    """Same names, order and defaults, except LEFT_OUT. `hidden`: the expected signature, if torch exposes none."""
    actual = {name: parameter.default for name, parameter in inspect.signature(mine).parameters.items()}
    expected = hidden
    if hidden is None:
        expected = {
            RENAMED.get(name, name): parameter.default
            for name, parameter in inspect.signature(theirs).parameters.items()
            if name not in LEFT_OUT or name in actual
        }
    if "dtype" in actual and "device" in actual:
        assert actual["dtype"] == "float32"
        actual["dtype"] = None
    assert list(actual.items()) == list(expected.items())


def check_module(make, inputs, device, *, text=None, constants=(), training=True, pick=lambda y: y):
    """Compare a module with torch's for the same parameters: its repr, its state and its results.

    `make` builds it from a namespace, nn or torch.nn. `text` is its repr if that differs from torch's. `pick` takes the
    tensor to compare out of a result.
    """
    with default(device):
        mine = make(nn).train(training)
    theirs = make(torch.nn).double().train(training)
    assert repr(mine) == (text or repr(theirs))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in mine.state_dict().items()} == {n: v.shape for n, v in state.items()}
    draws = np.random.default_rng(1)
    for name, value in state.items():
        if value.dtype.kind == "f":
            state[name] = draws.uniform(0.5, 1.5, value.shape).astype("float32").astype("float64")
    theirs.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    mine.load_state_dict(state)
    pairs = [both(constant, device) for constant in constants]
    actual = mine(*(ndl.Tensor(x.astype("float32"), device=device) for x in inputs), *(c for c, _ in pairs))
    expected = theirs(*map(torch.from_numpy, inputs), *(c for _, c in pairs))
    actual, expected = pick(actual), pick(expected)
    assert actual.dtype == "float32"
    assert_allclose(actual.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        assert_allclose(mine.state_dict()[name].numpy(), value.numpy(), rtol=1e-5, err_msg=name)


def raises(call, error, message):
    """Assert that the call raises this error with exactly this message."""
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
