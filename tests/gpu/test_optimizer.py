"""Steps of every optimizer on a GPU: one launch for all parameters, by the rules of the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import kernels, optim
from needle.kernels.gpu.optimizer import MOST, layout_beside
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM, on_device

DECAYS = [{}, {"weight_decay": 0.1, "maximize": True}]
KINDS = {
    "SGD": (optim.SGD, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3},
                        {"momentum": 0.9, "nesterov": True}]),
    "Adam": (optim.Adam, [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}]),
    "AdamW": (optim.AdamW, [{}]),
    "NAdam": (optim.NAdam, [{}, {"decoupled_weight_decay": True}]),
    "RAdam": (optim.RAdam, [{}, {"betas": (0.9, 0.5)}, {"decoupled_weight_decay": True}]),
    "Adamax": (optim.Adamax, [{}]),
    "RMSprop": (optim.RMSprop, [{}, {"momentum": 0.5}, {"centered": True}, {"momentum": 0.5, "centered": True}]),
    "Adagrad": (optim.Adagrad, [{"lr_decay": 0.1}]),
    "Adadelta": (optim.Adadelta, [{}]),
}  # fmt: skip
CASES = [
    pytest.param(make, {**options, **decay}, id=f"{name} {options} {decay}")
    for name, (make, given) in KINDS.items()
    for options in given
    for decay in DECAYS
]
SHAPES = [(3, 4), (5,), (), (2, 1, 3, 2), (1030,), (4, 0), (1, 7), (40, 3)]


def parameters(device, shapes=SHAPES, dtype="float32"):
    rng = np.random.default_rng(0)
    return [ndl.Tensor(rng.standard_normal(shape).astype(dtype), device=device) for shape in shapes]


def steps(make, params, count=7, skip=()):
    """The parameters after some steps with random gradients; those in `skip` have none in the second."""
    optimizer, rng = make(params), np.random.default_rng(1)
    for step in range(count):
        for index, parameter in enumerate(params):
            grad = rng.standard_normal(parameter.shape).astype(str(parameter.dtype))
            parameter.grad = None if step == 1 and index in skip else ndl.Tensor(grad, device=parameter.device)
        optimizer.step()
    return optimizer


def assert_like_the_cpu(make, count=7, shapes=SHAPES, dtype="float32", skip=()):
    here, there = parameters(ndl.cpu(), shapes, dtype), parameters(SHIM, shapes, dtype)
    first, second = steps(make, here, count, skip), steps(make, there, count, skip)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=2e-6)
    states = first.state_dict()["state"], second.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for entry, other in zip(states[0].values(), states[1].values(), strict=True):
        assert entry.keys() == other.keys()
        for name in entry:
            np.testing.assert_allclose(other[name], entry[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_every_optimizer(kind, options, run):
    assert_like_the_cpu(lambda params: kind(params, **options))
