"""Sequential, Residual and Identity: order, names, indices, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, normal

pytestmark = pytest.mark.usefixtures("on_device")


def test_sequential_applies_in_order_and_names_by_number():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight"]
    x = ndl.init.randn(4, 2)
    expected = np.maximum(x.numpy() @ net[0].weight.numpy() + net[0].bias.numpy(), 0) @ net[2].weight.numpy()
    np.testing.assert_allclose(net(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_sequential_is_indexed_like_a_sequence():
    layers = [nn.ReLU(), nn.Identity(), nn.Flatten()]
    net = nn.Sequential(*layers)
    assert len(net) == 3
    assert [net[0], net[-1], net.modules[1]] == [layers[0], layers[2], layers[1]]
    assert list(net) == list(net.modules) == layers
    with pytest.raises(IndexError):
        net[3]


def test_an_empty_sequential_is_the_identity():
    x = ndl.ones(2)
    assert nn.Sequential()(x) is x
    assert len(nn.Sequential()) == 0


def test_what_a_subclass_of_sequential_adds_is_found():
    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(2, 2, bias=False))
            self.scale = nn.Parameter(ndl.Tensor(np.array([3], np.float32)))
            self.tail = nn.Linear(2, 1)

        def forward(self, x):
            return self.tail(super().forward(x) * self.scale)

    net = Scaled()
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "scale", "tail.weight", "tail.bias"]
    net.eval()
    assert not net.tail.training


@pytest.mark.parametrize("wrong", [ndl.relu, [nn.ReLU()], None])
def test_sequential_and_residual_take_modules_only(wrong):
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"^Sequential: module must be a Module, but got {kind}$"):
        nn.Sequential(nn.ReLU(), wrong)
    with pytest.raises(TypeError, match=f"^Residual: fn must be a Module, but got {kind}$"):
        nn.Residual(wrong)


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(ndl.Tensor(np.array([2], np.float32)))

    def forward(self, x):
        return x * self.gain


def test_residual_adds_its_input():
    block = nn.Residual(Double())
    x = ndl.Tensor(np.array([1, -3], np.float32))
    y = block(x)
    assert y.numpy().tolist() == [3, -9]
    y.sum().backward()
    assert x.grad.numpy().tolist() == [3, 3]
    assert [name for name, _ in block.named_parameters()] == ["fn.gain"]


def test_identity_is_its_input(device):
    x = ndl.ones(2, device=device)
    layer = nn.Identity()
    assert layer(x) is x
    assert layer.parameters() == layer.buffers() == []
    assert_as_in_torch(layer, torch.nn.Identity(), normal(3, 4), device)
