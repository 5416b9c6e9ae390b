"""Training steps on the shim device: ops, gradients and optimizers with all raw kernels below, as on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim
from tests.gpu.shim_device import SHIM


def network(device):
    ndl.seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, device=device), nn.BatchNorm2d(8, device=device), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, device=device), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 5, device=device),
    )  # fmt: skip


def losses(device, batch):
    """The losses of four steps, the last one with fewer images."""
    model, draws = network(device), np.random.default_rng(0)
    optimizer, results = optim.Adam(model.parameters(), lr=0.01), []
    for n in (batch, batch, batch, batch - 1):
        x = ndl.Tensor(draws.normal(size=(n, 3, 16, 16)).astype("float32"), device=device, requires_grad=False)
        y = ndl.Tensor(draws.integers(0, 5, n), device=device, requires_grad=False)
        loss = nn.CrossEntropyLoss()(model(x), y)
        optimizer.reset_grad()
        loss.backward(create_graph=False)
        optimizer.step()
        results.append(loss.item())
    return results


@pytest.mark.parametrize("batch", [4, 7])
def test_losses_equal_those_of_the_cpu(batch, run):
    np.testing.assert_allclose(losses(SHIM, batch), losses(ndl.cpu(), batch), rtol=2e-5)
