"""Helpers for the tests of optimizers: parameters with gradients, every optimizer, a network and its torch twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn, optim

torch.set_num_threads(1)  # small arrays: more threads only wait for each other

STEPS = 20
RTOL = 1e-11
SHAPES = [(3, 4), (5,), (), (2, 1, 3, 2)]
MANY = [*SHAPES, (40, 3), (1, 7), (64,)]  # enough for a pool


def tensor(array, device=None):
    return ndl.Tensor(array, device=device)


def parameters_with_gradients(*shapes, dtype="float64", device=None, seed=0):
    """Random parameters of those shapes, with random gradients."""
    rng = np.random.default_rng(seed)
    params = [tensor(rng.standard_normal(shape).astype(dtype), device) for shape in shapes]
    for parameter in params:
        parameter.grad = tensor(rng.standard_normal(parameter.shape).astype(dtype), device)
    return params


OPTIMIZERS = {
    "SGD": lambda params, **options: optim.SGD(params, **options),
    "SGD, decay": lambda params, **options: optim.SGD(params, weight_decay=0.1, **options),
    "momentum": lambda params, **options: optim.SGD(params, momentum=0.9, weight_decay=0.1, **options),
    "nesterov": lambda params, **options: optim.SGD(params, momentum=0.9, dampening=0, nesterov=True, **options),
    "nesterov, decay": lambda params, **options: optim.SGD(
        params, momentum=0.9, weight_decay=0.1, dampening=0, nesterov=True, **options
    ),
    "Adam": lambda params, **options: optim.Adam(params, **options),
    "Adam, decay": lambda params, **options: optim.Adam(params, weight_decay=0.1, **options),
    "AdamW": lambda params, **options: optim.AdamW(params, weight_decay=0.1, **options),
    "RMSprop": lambda params, **options: optim.RMSprop(params, momentum=0.5, centered=True, **options),
    "Adagrad": lambda params, **options: optim.Adagrad(params, weight_decay=0.1, **options),
    "Adadelta": lambda params, **options: optim.Adadelta(params, **options),
    "NAdam": lambda params, **options: optim.NAdam(params, weight_decay=0.1, **options),
    "RAdam": lambda params, **options: optim.RAdam(params, betas=(0.9, 0.5), **options),
    "Adamax": lambda params, **options: optim.Adamax(params, **options),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def one_parameter():
    """The parameters of a model with a single one."""
    return [ndl.ones(2, requires_grad=True)]


class Twins:
    """The same small network in needle and in torch, in float64, with parameters of four shapes.

    The convolution has no bias: before a batch norm its gradient is rounding noise, which Adam scales to full steps.
    """

    def __init__(self, device):
        rng = np.random.default_rng(3)
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False, device=device, dtype="float64"),
            nn.BatchNorm2d(3, device=device, dtype="float64"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(27, 4, device=device, dtype="float64"),
        )
        self.twin = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3, bias=False),
            torch.nn.BatchNorm2d(3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(27, 4),
        ).double()
        with torch.no_grad():
            for parameter, other in zip(self.net.parameters(), self.twin.parameters(), strict=True):
                other.copy_(torch.from_numpy(self.in_torch_layout(parameter)))
        self.batches = [(rng.standard_normal((8, 1, 5, 5)), rng.integers(0, 4, 8)) for _ in range(7)]
        self.device = device

    @staticmethod
    def in_torch_layout(parameter):
        array = parameter.numpy()
        if array.ndim == 2:  # Linear's weight (in, out) and bias (1, out)
            array = array.T if array.shape[0] > 1 else array[0]
        return np.ascontiguousarray(array)

    def assert_equal_steps(self, optimizer, torch_optimizer, before_step=lambda step: None):
        start = [parameter.numpy() for parameter in self.net.parameters()]
        for step in range(STEPS):
            x, labels = self.batches[step % len(self.batches)]
            optimizer.reset_grad()
            torch_optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(self.net(tensor(x, self.device)), tensor(labels, self.device))
            torch_loss = torch.nn.CrossEntropyLoss()(self.twin(torch.from_numpy(x)), torch.from_numpy(labels))
            np.testing.assert_allclose(loss.item(), torch_loss.item(), rtol=1e-10, err_msg=f"step {step}")
            loss.backward(create_graph=False)
            torch_loss.backward()
            before_step(step)
            optimizer.step()
            torch_optimizer.step()
        for parameter, other, first in zip(self.net.parameters(), self.twin.parameters(), start, strict=True):
            assert np.abs(parameter.numpy() - first).max() > 1e-3
            np.testing.assert_allclose(
                self.in_torch_layout(parameter), other.detach().numpy(), rtol=1e-10, atol=1e-11, strict=True
            )


def in_torch(kind, **options):
    """Functions that make the optimizer `kind` of needle and of torch with the same options."""
    betas = [options.get("beta1", 0.9), options.get("beta2", 0.999)]
    torch_options = {name: value for name, value in options.items() if name not in ("beta1", "beta2")}
    if kind != "SGD":
        torch_options["betas"] = betas
    return (
        lambda params: getattr(optim, kind)(params, **options),
        lambda params: getattr(torch.optim, kind)(params, **torch_options),
    )


def assert_formula(make, formula, device):
    """Compare some steps with `formula(t, parameter, grad, state)`, which returns (parameter, state)."""
    params = parameters_with_gradients(*SHAPES, device=device)
    expected, states = [parameter.numpy() for parameter in params], [0.0] * len(params)
    optimizer, rng = make(params), np.random.default_rng(1)
    for t in range(1, STEPS + 1):
        for i, parameter in enumerate(params):
            grad = np.asarray(rng.standard_normal(parameter.shape))
            parameter.grad = tensor(grad, device)
            expected[i], states[i] = formula(t, expected[i], grad, states[i])
        optimizer.step()
    for parameter, array in zip(params, expected, strict=True):
        np.testing.assert_allclose(parameter.numpy(), array, rtol=RTOL, atol=1e-13)


def state_arrays(optimizer, device):
    """Every array in the attributes of an optimizer and of its state, less those that it remembers having checked."""

    def walk(value):
        if isinstance(value, device.array_type()):
            yield value
        elif isinstance(value, ndl.Tensor):
            assert any(value is parameter for parameter in optimizer.params)  # the state holds arrays: no graph
        elif isinstance(value, (list, tuple, dict)):
            for entry in value.values() if isinstance(value, dict) else value:
                yield from walk(entry)
        elif type(value).__module__.startswith("needle.optim"):
            yield from walk({name: entry for name, entry in vars(value).items() if name != "checked"})

    return list(walk(vars(optimizer)))


def alone(make, shapes, change=lambda step, params: None, steps=4, **options):
    """Parameters after some steps, each with an optimizer of its own, so nothing is pooled."""
    return stepped(lambda params: [make([parameter]) for parameter in params], shapes, change, steps, **options)


def stepped(make_all, shapes, change=lambda step, params: None, steps=4, **options):
    """Parameters after some steps of all optimizers in `make_all(params)`; `change` runs before each step."""
    params = parameters_with_gradients(*shapes, **options)
    optimizers = make_all(params)
    for step in range(steps):
        rng = np.random.default_rng(step)
        for parameter in params:
            grad = rng.standard_normal(parameter.shape).astype(str(parameter.dtype))
            parameter.grad = tensor(grad, parameter.device)
        change(step, params)
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.numpy() for parameter in params]


def assert_same_bits(arrays, expected):
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other, strict=True)
