"""RMSprop, Adagrad, Adadelta, NAdam, RAdam and Adamax against torch's, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import needle as ndl
from needle import optim
from tests.optim.steps import MANY, one_parameter, parameters_with_gradients

pytestmark = pytest.mark.usefixtures("double_precision")

SETTINGS = {
    "RMSprop": [
        {},
        {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05},
        {"momentum": 0.9, "centered": True},
        {"momentum": 0.5, "weight_decay": 0.1, "maximize": True},
        {"centered": True, "alpha": 0.5},
    ],
    "Adagrad": [{}, {"lr": 0.5, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.3, "eps": 1e-4}],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}],
    "NAdam": [
        {},
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.1},
        {"weight_decay": 0.3, "decoupled_weight_decay": True, "maximize": True},
    ],
    "RAdam": [
        {},
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
        {"betas": (0.9, 0.6), "lr": 0.01},
        {"weight_decay": 0.3, "decoupled_weight_decay": True, "maximize": True},
    ],
    "Adamax": [{}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}],
}
every_setting = pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind, settings in SETTINGS.items() for options in settings], ids=str
)


def groups_of(params):
    """Two groups; the second has a rate and a decay of its own."""
    return [{"params": params[::2]}, {"params": params[1::2], "lr": 0.02, "weight_decay": 0.2}]


@every_setting
def test_steps_are_torchs(kind, options, device):
    """With parameters that join late, pause or never have a gradient."""
    params = parameters_with_gradients(*MANY, (), (300, 2), device=device)
    twins = [torch.from_numpy(parameter.numpy()).requires_grad_() for parameter in params]
    start = [parameter.numpy() for parameter in params]
    optimizer = getattr(optim, kind)(groups_of(params), **options)
    twin_optimizer = getattr(torch.optim, kind)(groups_of(twins), **options)
    rng = np.random.default_rng(2)
    for step in range(50):
        for i, (parameter, twin) in enumerate(zip(params, twins, strict=True)):
            grad = np.asarray(rng.standard_normal(parameter.shape) * (1 + step % 7))
            skips = i == 0 or (i == 1 and step < 30) or (i == 2 and step % 3 == 0)
            parameter.grad = None if skips else ndl.Tensor(grad, device=device)
            twin.grad = None if skips else torch.from_numpy(grad)
        optimizer.step()
        twin_optimizer.step()
    for parameter, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), rtol=1e-10, atol=1e-12)
    moved = [np.abs(parameter.numpy() - first).max() > 1e-4 for parameter, first in zip(params, start, strict=True)]
    assert moved == [False] + [True] * (len(params) - 1)


@every_setting
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtypes_stay(kind, options, dtype, device):
    params = parameters_with_gradients(*MANY, dtype=dtype, device=device)
    exact = parameters_with_gradients(*MANY, device=device)
    for parameter, other in zip(params, exact, strict=True):
        other.data, other.grad = parameter.astype("float64").detach(), parameter.grad.astype("float64").detach()
    for each in (params, exact):
        optimizer = getattr(optim, kind)(each, **options)
        for _ in range(3):
            optimizer.step()
        assert {array.dtype for arrays in optimizer._state.arrays.values() for array in arrays.values()} == {
            each[0].dtype
        }
    for parameter, other in zip(params, exact, strict=True):
        assert parameter.dtype == dtype
        np.testing.assert_allclose(parameter.numpy(), other.numpy(), rtol=0, atol=1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_signatures_are_torchs(kind):
    ours, theirs = (inspect.signature(getattr(library, kind)).parameters for library in (optim, torch.optim))
    left_out = {"foreach", "capturable", "differentiable", "fused"}
    expected = [(name, parameter.default) for name, parameter in theirs.items() if name not in left_out]
    assert [(name, parameter.default) for name, parameter in ours.items()] == expected


def test_a_centered_average_of_equal_gradients_stays_finite():
    """Rounding leaves less than 0 under torch's root, and NaN."""
    parameter = ndl.ones(5)
    parameter.grad = ndl.Tensor([0.1, 0.3, 0.7, 1.1, 2.3], dtype="float32")
    optimizer = optim.RMSprop([parameter], lr=1e-3, centered=True, alpha=0.9)
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(parameter.numpy()).all()


ERRORS = [
    (lambda: optim.RMSprop(one_parameter(), alpha=1.5), ValueError, "RMSprop: alpha must lie in [0, 1], but got 1.5"),
    (lambda: optim.RMSprop(one_parameter(), eps=-1), ValueError, "RMSprop: eps must lie in [0, inf], but got -1"),
    (lambda: optim.RMSprop(one_parameter(), centered=1), TypeError, "RMSprop: centered must be a bool, but got int"),
    (
        lambda: optim.Adagrad(one_parameter(), initial_accumulator_value=-0.1), ValueError,
        "Adagrad: initial_accumulator_value must lie in [0, inf], but got -0.1",
    ),
    (lambda: optim.Adadelta(one_parameter(), rho=-1), ValueError, "Adadelta: rho must lie in [0, 1], but got -1"),
    (lambda: optim.NAdam(one_parameter(), betas=(0.9, 1)), ValueError, "NAdam: beta2 must lie in [0, 1), but got 1"),
    (lambda: optim.RAdam(one_parameter(), betas=0.9), TypeError, "RAdam: betas must be a pair of numbers, but got 0.9"),
    (lambda: optim.Adamax(one_parameter(), eps="0"), TypeError, "Adamax: eps must be a number, but got '0'"),
]  # fmt: skip


@pytest.mark.on_cpu
@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
