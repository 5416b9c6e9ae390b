"""Adam and AdamW: their rules against torch and the formula, the count of steps, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from needle import optim
from tests.optim.steps import MANY, Twins, assert_formula, in_torch, one_parameter, parameters_with_gradients


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Adam", {"lr": 0.01}),
        ("Adam", {"lr": 0.01, "weight_decay": 0.05}),
        ("Adam", {"lr": 0.01, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
        ("Adam", {"lr": 0.01, "beta1": 0.0, "beta2": 0.9}),
        ("AdamW", {"lr": 0.01}),
        ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
        ("AdamW", {"lr": 0.01, "weight_decay": 0.0}),
    ],
    ids=["Adam", "Adam, decay", "Adam, options", "Adam, beta1=0", "AdamW", "AdamW, decay", "AdamW, no decay"],
)
def test_a_network_learns_as_with_torch(kind, options, device):
    twins, (make, torch_make) = Twins(device), in_torch(kind, **options)
    twins.assert_equal_steps(make(twins.net.parameters()), torch_make(twins.twin.parameters()))


def formula_of_adam(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=0.0):
    def step(t, parameter, grad, state):
        m, v = state if np.ndim(state) else (0.0, 0.0)
        parameter = parameter * (1 - lr * decoupled)
        grad = grad + weight_decay * parameter
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        return parameter - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), np.array([m, v])

    return step


FORMULAS = {
    "Adam by default": (lambda params: optim.Adam(params), formula_of_adam()),
    "Adam by position": (
        lambda params: optim.Adam(params, 0.02, 0.8, 0.99, 1e-4, 0.1),
        formula_of_adam(0.02, 0.8, 0.99, 1e-4, 0.1),
    ),
    "AdamW by default": (lambda params: optim.AdamW(params), formula_of_adam(lr=0.001, decoupled=0.01)),
}


@pytest.mark.parametrize(("make", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_steps_follow_the_formula(make, formula, device):
    assert_formula(make, formula, device)


@pytest.mark.parametrize("many", [False, True], ids=["few", "pooled"])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_steps_are_counted_for_each_parameter(kind, many, device):
    """Against torch: one parameter joins after many steps, another pauses now and then."""
    params = parameters_with_gradients(*(MANY if many else [(3,), (3,), (3,)]), device=device)
    twins = [torch.from_numpy(parameter.numpy()).requires_grad_() for parameter in params]
    optimizer, torch_optimizer = getattr(optim, kind)(params, lr=0.01), getattr(torch.optim, kind)(twins, lr=0.01)
    grads = [parameter.grad for parameter in params]
    for step in range(60):
        for i, (parameter, twin, grad) in enumerate(zip(params, twins, grads, strict=True)):
            has_grad = not (i == 0 and step < 50) and not (i == 1 and step % 3 == 0)
            parameter.grad = grad * (step % 5 + 1) if has_grad else None
            twin.grad = torch.from_numpy(parameter.grad.numpy()) if has_grad else None
        optimizer.step()
        torch_optimizer.step()
    for parameter, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_betas_are_beta1_and_beta2():
    optimizer = optim.Adam(one_parameter(), betas=(0.8, 0.9))
    assert (optimizer.beta1, optimizer.beta2) == optimizer.betas == (0.8, 0.9)
    optimizer.betas = [0.5, 0.6]
    assert (optimizer.beta1, optimizer.beta2) == (0.5, 0.6)
    optimizer.beta2 = 0.7
    assert optimizer.betas == (0.5, 0.7)
    for betas, error in (((0.9, 1.0), ValueError), (0.9, TypeError), ((0.9,), TypeError), (("a", 0.9), TypeError)):
        with pytest.raises(error, match=r"^Adam: beta"):
            optimizer.betas = betas
        assert optimizer.betas == (0.5, 0.7)
    assert optim.AdamW(one_parameter(), betas=(0.8, 0.9)).betas == (0.8, 0.9)
    with pytest.raises(ValueError, match=r"^AdamW: betas must not come with beta1 or beta2, but got \(0.8, 0.9\)$"):
        optim.AdamW(one_parameter(), beta1=0.5, betas=(0.8, 0.9))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.Adam, {"beta1": 1}, "Adam: beta1 must lie in [0, 1), but got 1"),
        (optim.AdamW, {"beta2": -0.5}, "AdamW: beta2 must lie in [0, 1), but got -0.5"),
        (optim.Adam, {"eps": float("inf")}, "Adam: eps must be finite, but got inf"),
        (optim.Adam, {"eps": -1e-8}, "Adam: eps must lie in [0, inf], but got -1e-08"),
    ],
)
def test_errors(make, options, message):
    with pytest.raises(ValueError, match=r"^Adam") as caught:
        make(one_parameter(), **options)
    assert str(caught.value) == message
