"""Adam and AdamW: their rules against torch and the formula, the count of steps, and their errors."""

from __future__ import annotations

import numpy as np
import pytest

from needle import optim
from tests.optim.steps import RTOL, Twins, assert_formula, in_torch, one_parameter, parameters_with_gradients


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


def test_adam_counts_its_steps_for_all_parameters_together(device):
    late, other = parameters_with_gradients((3,), (3,), device=device)
    start, grad = late.numpy(), late.grad
    optimizer, late.grad = optim.Adam([late, other]), None
    for _ in range(4):
        optimizer.step()
    np.testing.assert_array_equal(late.numpy(), start)
    late.grad = grad
    optimizer.step()
    assert optimizer.t == 5
    expected, _ = formula_of_adam()(5, start, grad.numpy(), 0.0)
    np.testing.assert_allclose(late.numpy(), expected, rtol=RTOL)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.Adam, {"beta1": 1}, "Adam: beta1 must lie in [0, 1), but got 1"),
        (optim.AdamW, {"beta2": -0.5}, "AdamW: beta2 must lie in [0, 1), but got -0.5"),
        (optim.Adam, {"eps": -1e-8}, "Adam: eps must lie in [0, inf], but got -1e-08"),
    ],
)
def test_errors(make, options, message):
    with pytest.raises(ValueError, match=r"^Adam") as caught:
        make(one_parameter(), **options)
    assert str(caught.value) == message
