"""Losses as layers: cross entropy against torch, and the errors of SoftmaxLoss and CrossEntropyLoss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, normal, tensor
from tests.nn.functional.alike import raises


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 4), (1, 3), (3, 1), (5, 256)], ids=str)
def test_cross_entropy(dtype, shape, device):
    labels = np.random.randint(0, shape[1], shape[0])
    labels[0] = shape[1] - 1
    target = tensor(labels.astype(dtype), device, requires_grad=False)
    torch_loss = torch.nn.CrossEntropyLoss()

    class Needle(nn.Module):
        def forward(self, x):
            return nn.CrossEntropyLoss()(x, target)

    class Torch(torch.nn.Module):
        def forward(self, x):
            return torch_loss(x, torch.from_numpy(labels))

    assert_as_in_torch(Needle(), Torch(), 2 * normal(*shape), device)


def test_cross_entropy_of_targets_in_a_list(device):
    x = normal(3, 4)
    loss = nn.CrossEntropyLoss()(tensor(x, device), tensor(np.array([3, 0, 1]), device))
    if device == ndl.cpu():
        assert nn.CrossEntropyLoss()(tensor(x, device), [3, 0, 1]).item() == loss.item()
    np.testing.assert_allclose(
        loss.item(), torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.tensor([3, 0, 1]))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_cross_entropy_of_large_logits(dtype, size, device):
    logits = np.array([[size, -size, 0], [-size, -size, -size], [0, size, size]], dtype)
    labels = np.array([0, 1, 2])
    x, torch_x = tensor(logits, device), torch.from_numpy(logits).requires_grad_()
    loss, torch_loss = (
        nn.CrossEntropyLoss()(x, tensor(labels, device)),
        torch.nn.CrossEntropyLoss()(torch_x, torch.from_numpy(labels)),
    )
    loss.backward()
    torch_loss.backward()
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss.item(), torch_loss.item(), rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-12)


def test_cross_entropy_of_a_very_small_logit_is_finite(device):
    x = tensor(np.array([[0, 1e4]], np.float32), device)
    loss = nn.CrossEntropyLoss()(x, tensor(np.array([0]), device))
    assert loss.item() == 1e4
    loss.backward()
    assert x.grad.numpy().tolist() == [[-1, 1]]


# ---- errors ----------------------------------------------------------------------------------------------------------


ERRORS = [
    (
        lambda: nn.SoftmaxLoss()(ndl.zeros(2, 3), ndl.zeros(2, 3)),
        ValueError,
        "SoftmaxLoss: x (N, C) and target (N,) are needed, but got (2, 3) and (2, 3)",
    ),
    (
        lambda: nn.SoftmaxLoss()(ndl.zeros(3), ndl.zeros()),
        ValueError,
        "SoftmaxLoss: x (N, C) and target (N,) are needed, but got (3,) and ()",
    ),
    (
        lambda: nn.SoftmaxLoss()(ndl.zeros(2, 3), ndl.Tensor([0, 3])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: nn.CrossEntropyLoss()(ndl.zeros(2, 3), ndl.zeros(3)),
        ValueError,
        "cross_entropy: target must hold class indices (2,) or probabilities (2, 3) for x (2, 3), but got (3,)",
    ),
    (
        lambda: nn.CrossEntropyLoss()(ndl.zeros(0, 3), ndl.zeros(0)),
        ValueError,
        "cross_entropy: the batch must not be empty, but got x of shape (0, 3)",
    ),
    (
        lambda: nn.CrossEntropyLoss()(ndl.zeros(2, 3), ndl.Tensor([0, 3])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: nn.CrossEntropyLoss()(ndl.zeros(2, 3), ndl.Tensor([-1, 2])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got -1 to 2",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
