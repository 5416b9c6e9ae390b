"""The course's optimizers against their formulas in NumPy, and what a step must not change."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import autograd, nn, optim

SHAPES = [(3, 2), (4,), ()]
MISSING = {(0, 1), (1, 1), (3, 0), (4, 2)}  # (step, parameter) without a gradient


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def run_sgd(values, grads, lr, momentum, weight_decay):
    """Yields the parameters after each step, in float64."""
    values, velocities = [v.astype("float64") for v in values], [0.0] * len(values)
    for of_step in grads:
        for i, grad in enumerate(of_step):
            if grad is not None:
                g = grad + weight_decay * values[i]
                velocities[i] = momentum * velocities[i] + (1 - momentum) * g
                values[i] = values[i] - lr * velocities[i]
        yield list(values)


def run_adam(values, grads, lr, beta1, beta2, eps, weight_decay):
    """Yields the parameters after each step, in float64; t counts the steps of each parameter."""
    values = [v.astype("float64") for v in values]
    first, second, count = [0.0] * len(values), [0.0] * len(values), [0] * len(values)
    for of_step in grads:
        for i, grad in enumerate(of_step):
            if grad is not None:
                t = count[i] = count[i] + 1
                g = grad + weight_decay * values[i]
                first[i] = beta1 * first[i] + (1 - beta1) * g
                second[i] = beta2 * second[i] + (1 - beta2) * g**2
                step = (first[i] / (1 - beta1**t)) / (np.sqrt(second[i] / (1 - beta2**t)) + eps)
                values[i] = values[i] - lr * step
        yield list(values)


SGD_DEFAULTS = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}
ADAM_DEFAULTS = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
ROWS = [
    *(
        (optim.SGD, run_sgd, SGD_DEFAULTS, options)
        for options in (
            {},
            {"lr": 0.1},
            {"lr": 0.1, "momentum": 0.9},
            {"lr": 0.1, "weight_decay": 0.01},
            {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3},
        )
    ),
    *(
        (optim.Adam, run_adam, ADAM_DEFAULTS, options)
        for options in (
            {},
            {"lr": 0.1, "weight_decay": 0.3},
            {"lr": 0.1, "beta1": 0.5, "beta2": 0.7},
            {"lr": 0.1, "eps": 0.5},  # eps is added outside of the root
        )
    ),
]
NAMES = [f"{row[0].__name__} {row[3]}" for row in ROWS]


@pytest.mark.parametrize(("optimizer", "run", "defaults", "options"), ROWS, ids=NAMES)
def test_steps_follow_the_formula(optimizer, run, defaults, options, device):
    values = [normal(*shape) for shape in SHAPES]
    grads = [
        [None if (t, i) in MISSING else normal(*shape, seed=t + 1) for i, shape in enumerate(SHAPES)] for t in range(6)
    ]
    parameters = [nn.Parameter(ndl.Tensor(value, device=device)) for value in values]
    opt = optimizer(parameters, **options)
    assert all(a is b for a, b in zip(opt.params, parameters, strict=True))
    for of_step, expected in zip(grads, run(values, grads, **{**defaults, **options}), strict=True):
        opt.reset_grad()
        assert [parameter.grad for parameter in parameters] == [None] * len(parameters)
        for parameter, grad in zip(parameters, of_step, strict=True):
            parameter.grad = None if grad is None else ndl.Tensor(grad, device=device)
        opt.step()
        for parameter, grad, value in zip(parameters, of_step, expected, strict=True):
            assert_allclose(parameter.numpy(), value, rtol=1e-4, atol=1e-6)
            assert (parameter.shape, parameter.dtype, parameter.device) == (value.shape, "float32", device)
            assert parameter.is_leaf()
            assert parameter.requires_grad
            if grad is not None:
                assert_array_equal(parameter.grad.numpy(), grad)  # unchanged


@pytest.mark.parametrize(("optimizer", "defaults"), [(optim.SGD, SGD_DEFAULTS), (optim.Adam, ADAM_DEFAULTS)])
def test_arguments(optimizer, defaults, device):
    actual = {
        p.name: p.default for p in inspect.signature(optimizer).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    }
    assert actual == {"params": inspect.Parameter.empty, **defaults}
    assert list(actual) == ["params", *defaults]  # also by position
    assert isinstance(optimizer([nn.Parameter(ndl.ones(2, device=device))]), optim.Optimizer)


def test_a_custom_optimizer(device):
    """The base accepts parameters alone."""

    class Descent(optim.Optimizer):
        def __init__(self, params, rate):
            super().__init__(params)
            self.rate = rate

        def step(self):
            for parameter in self.params:
                parameter.data = parameter.data - self.rate * parameter.grad.data

    parameter = nn.Parameter(ndl.ones(2, device=device))
    opt = Descent([parameter], 0.25)
    (parameter * 2).backward()
    opt.step()
    assert parameter.numpy().tolist() == [0.5, 0.5]
    opt.reset_grad()
    assert parameter.grad is None


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_step_leaves_no_graph(optimizer, uncollected, device):
    """A step leaves no new tensor alive, neither parameters nor state."""
    model = nn.Sequential(nn.Linear(3, 4, device=device), nn.ReLU(), nn.Linear(4, 2, device=device))
    opt = optimizer(model.parameters(), lr=0.1, weight_decay=0.01)
    parameters = model.parameters()
    x, y = ndl.Tensor(normal(5, 3), device=device), ndl.Tensor(np.array([0, 1, 0, 1, 1]), device=device)
    for _ in range(3):
        opt.reset_grad()
        nn.SoftmaxLoss()(model(x), y).backward()
        grads = [id(parameter.grad) for parameter in parameters]
        before = autograd.TENSOR_COUNTER
        opt.step()
        assert before == autograd.TENSOR_COUNTER > 0
        assert [id(parameter.grad) for parameter in parameters] == grads
    assert model.parameters() == parameters
    assert all(parameter.is_leaf() and parameter.dtype == "float32" for parameter in parameters)


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_gradient_of_float64_leaves_the_parameter_float32(optimizer, device):
    parameter = nn.Parameter(ndl.Tensor(normal(3), device=device))
    ndl.summation(parameter * ndl.Tensor(np.ones(3), device=device)).backward()
    optimizer([parameter]).step()
    assert parameter.dtype == "float32"


@pytest.mark.parametrize("max_norm", [1.0, 0.25, 100.0])
def test_clip_grad_norm(max_norm, device):
    parameters = [nn.Parameter(ndl.ones(2, device=device)) for _ in range(3)]
    grads = [np.array([3, 0], "float32"), np.array([0, 4], "float32")]
    for parameter, grad in zip(parameters, grads, strict=False):
        parameter.grad = ndl.Tensor(grad, device=device)
    opt = optim.SGD(parameters)
    opt.clip_grad_norm(max_norm)
    scale = min(1, max_norm / (5 + 1e-6))
    for parameter, grad in zip(parameters, grads, strict=False):
        assert_allclose(parameter.grad.numpy(), grad * scale, rtol=1e-6)
    assert parameters[2].grad is None
    assert inspect.signature(opt.clip_grad_norm).parameters["max_norm"].default == 0.25
