"""Linear: its draws, its values and derivatives against torch, its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, assert_draws, linear_layout, normal, tensor, uniform
from tests.nn.functional.alike import raises


def test_linear_draws_the_weight_by_fan_in_and_then_the_bias_by_fan_out(device):
    def arrays():
        weight = uniform(math.sqrt(2) * math.sqrt(3 / 5), 5, 3)
        return {"weight": weight, "bias": uniform(math.sqrt(2) * math.sqrt(3 / 3), 3, 1).reshape(1, 3)}

    assert_draws(lambda: nn.Linear(5, 3, device=device), arrays)


def test_linear_without_bias_draws_the_weight_only(device):
    assert_draws(lambda: nn.Linear(6, 2, bias=False, device=device), lambda: {"weight": uniform(1.0, 6, 2)})


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (2, 3, 4, 5), (1, 5), (5,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias, device):
    layer = nn.Linear(5, 3, bias=bias, device=device, dtype="float64")
    twin = torch.nn.Linear(5, 3, bias=bias, dtype=torch.float64)
    assert_as_in_torch(layer, twin, normal(*shape), device, linear_layout)


def test_linear_of_an_empty_batch(device):
    assert nn.Linear(5, 3, device=device)(ndl.zeros(0, 5, device=device)).shape == (0, 3)


def test_linear_takes_a_bias_of_one_axis(device):
    layer = nn.Linear(2, 3, device=device)
    layer.bias = tensor(np.array([1, 2, 3], np.float32), device)
    y = layer(ndl.zeros(4, 2, device=device))
    assert y.numpy().tolist() == [[1, 2, 3]] * 4


# ---- errors ----------------------------------------------------------------------------------------------------------


ERRORS = [
    (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features must be at least 1, but got 0"),
    (lambda: nn.Linear(3, -1), ValueError, "Linear: out_features must be at least 1, but got -1"),
    (lambda: nn.Linear(3, 2.0), TypeError, "Linear: out_features must be an integer, but got 2.0"),
    (
        lambda: nn.Linear(3, 2)(ndl.zeros(4, 2)),
        ValueError,
        "Linear: x must have 3 features in its last axis, but got (4, 2)",
    ),
    (lambda: nn.Linear(3, 2)(ndl.zeros()), ValueError, "Linear: x must have 3 features in its last axis, but got ()"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
