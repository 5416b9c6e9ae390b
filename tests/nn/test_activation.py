"""Activations as layers: values and derivatives against torch; tests of the functions cover the rest."""

from __future__ import annotations

import pytest
import torch

from needle import nn
from tests.nn.compare import assert_as_in_torch, normal

ACTIVATIONS = {
    "ELU": {"alpha": 0.7},
    "Hardtanh": {"min_val": -0.5, "max_val": 0.7},
    "LeakyReLU": {"negative_slope": 0.2},
    "LogSoftmax": {"dim": 1},
    "ReLU": {},
    "ReLU6": {},
    "SiLU": {},
    "Sigmoid": {},
    "Softmax": {"dim": 1},
    "Softplus": {"beta": 2, "threshold": 3},
    "Tanh": {},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_torch(name, device):
    layer = getattr(nn, name)(**ACTIVATIONS[name])
    assert_as_in_torch(layer, getattr(torch.nn, name)(**ACTIVATIONS[name]), normal(3, 4), device)
    assert layer.parameters() == layer.buffers() == []
