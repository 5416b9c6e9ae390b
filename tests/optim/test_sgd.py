"""SGD: its rule against torch and the formula, and its errors."""

from __future__ import annotations

import pytest

from needle import optim
from tests.optim.steps import Twins, assert_formula, in_torch, one_parameter


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.05},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0, "weight_decay": 0.05},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0, "nesterov": True},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0, "nesterov": True, "weight_decay": 0.05},
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    ],
    ids=["SGD", "SGD, decay", "momentum", "momentum, decay", "nesterov", "nesterov, decay", "nesterov alone"],
)
def test_a_network_learns_as_with_torch(options, device):
    twins, (make, torch_make) = Twins(device), in_torch("SGD", **options)
    twins.assert_equal_steps(make(twins.net.parameters()), torch_make(twins.twin.parameters()))


def formula_of_the_course(momentum, weight_decay, lr=0.1):
    """The rule of SGD with the default dampening."""

    def step(t, parameter, grad, u):
        grad = grad + weight_decay * parameter
        u = momentum * u + (1 - momentum) * grad
        return parameter - lr * u, u

    return step


FORMULAS = {
    "SGD": (lambda params: optim.SGD(params, lr=0.1), formula_of_the_course(0.0, 0.0)),
    "SGD by default": (lambda params: optim.SGD(params), formula_of_the_course(0.0, 0.0, lr=0.01)),
    "SGD, momentum": (lambda params: optim.SGD(params, lr=0.1, momentum=0.9), formula_of_the_course(0.9, 0.0)),
    "SGD by position": (lambda params: optim.SGD(params, 0.1, 0.5, 0.05), formula_of_the_course(0.5, 0.05)),
    "SGD, dampening 1": (
        lambda params: optim.SGD(params, 0.1, dampening=1.0),
        lambda t, parameter, grad, u: (parameter, u),
    ),
}


@pytest.mark.parametrize(("make", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_steps_follow_the_formula(make, formula, device):
    assert_formula(make, formula, device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": -0.1}, "SGD: momentum must lie in [0, inf], but got -0.1"),
        ({"nesterov": True}, "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.0 and 0.0"),
        (
            {"momentum": 0.9, "dampening": 0.9, "nesterov": True},
            "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.9 and 0.9",
        ),
        ({"momentum": float("inf")}, "SGD: momentum must be finite, but got inf"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=r"^SGD: ") as caught:
        optim.SGD(one_parameter(), **options)
    assert str(caught.value) == message


def test_the_dampening_follows_the_momentum_until_it_is_set():
    optimizer = optim.SGD(one_parameter(), momentum=0.9, nesterov=True)
    for option, value in (("dampening", 0.5), ("momentum", 0), ("nesterov", 1)):
        with pytest.raises((ValueError, TypeError), match=r"^SGD: "):
            setattr(optimizer, option, value)
    assert (optimizer.momentum, optimizer.dampening, optimizer.nesterov) == (0.9, None, True)
    optimizer.nesterov = False
    optimizer.momentum, optimizer.dampening = 0, 0.5
