"""Batch norm by the course's contract, against torch: training, tracking, evaluation; the errors of norms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, normal, tensor, with_random_parameters
from tests.nn.functional.alike import raises

BATCH_NORMS = {
    "N,C": (nn.BatchNorm1d, torch.nn.BatchNorm1d, (6, 3)),
    "N,C,L": (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4, 3, 5)),
    "N,C,H,W": (nn.BatchNorm2d, torch.nn.BatchNorm2d, (4, 3, 5, 2)),
}
batch_norms = pytest.mark.parametrize(("kind", "torch_kind", "shape"), BATCH_NORMS.values(), ids=BATCH_NORMS.keys())


def over_batch(x):
    """The mean and the biased variance of each channel."""
    axes = (0, *range(2, x.ndim))
    return x.mean(axes), x.var(axes)


@batch_norms
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=["default", "options"])
def test_batch_norm_in_training(kind, torch_kind, shape, options, device):
    layer = with_random_parameters(kind(3, **options, device=device, dtype="float64"))
    twin = torch_kind(3, **options, dtype=torch.float64)
    assert_as_in_torch(layer, twin, 3 * normal(*shape) + 5, device)


@batch_norms
def test_batch_norm_tracks_mean_and_biased_variance(kind, torch_kind, shape, device):
    layer = kind(3, momentum=0.3, device=device, dtype="float64")
    twin = torch_kind(3, momentum=0.3, dtype=torch.float64)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = 3 * normal(*shape) + 5
        layer(tensor(x, device))
        twin(torch.from_numpy(x))
        batch_mean, batch_variance = over_batch(x)
        mean, variance = 0.7 * mean + 0.3 * batch_mean, 0.7 * variance + 0.3 * batch_variance
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_mean.numpy(), twin.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-12)
    count = math.prod(shape) / 3  # torch's is unbiased
    unbiased = layer.running_var.numpy() + (layer.running_var.numpy() - 0.7**3) / (count - 1)
    np.testing.assert_allclose(unbiased, twin.running_var.numpy(), rtol=1e-12)


@batch_norms
def test_batch_norm_in_evaluation(kind, torch_kind, shape, device):
    layer = with_random_parameters(kind(3, device=device, dtype="float64"))
    twin = torch_kind(3, dtype=torch.float64).eval()
    mean, variance = normal(3), 0.5 + normal(3) ** 2
    layer.load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)
    twin.load_state_dict(
        {"running_mean": torch.from_numpy(mean), "running_var": torch.from_numpy(variance)}, strict=False
    )
    assert_as_in_torch(layer.eval(), twin, normal(*shape), device)
    np.testing.assert_array_equal(layer.running_mean.numpy(), mean)
    np.testing.assert_array_equal(layer.running_var.numpy(), variance)


@batch_norms
def test_batch_norm_begins_as_in_torch_without_draws(kind, torch_kind, shape, device):
    state = np.random.get_state()
    layer = kind(3, device=device)
    np.testing.assert_equal(np.random.get_state(), state)
    expected = torch_kind(3).state_dict()
    assert list(layer.state_dict()) == list(expected)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy(), strict=True)
    assert [name for name, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
    assert (layer.eps, layer.momentum) == (1e-5, 0.1)


@batch_norms
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_takes_float64_in_a_float32_layer(kind, torch_kind, shape, training, device):
    layer = kind(3, device=device).train(training)
    x = normal(*shape)
    y = layer(tensor(x, device))
    assert y.dtype == np.float32
    reference = torch_kind(3, dtype=torch.float64).train(training)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y.numpy(), reference, rtol=1e-5, atol=1e-6)
    (y * y * y).sum().backward()
    assert all(parameter.grad.dtype == np.float32 for parameter in layer.parameters())
    for buffer, batch, start in zip(layer.buffers()[:2], over_batch(x), (0, 1), strict=True):
        assert buffer.dtype == np.float32
        expected = 0.9 * start + 0.1 * batch if training else np.full(3, start)
        np.testing.assert_allclose(buffer.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_batch_norm_keeps_no_graph_and_no_gradient_in_its_buffers(device):
    layer = nn.BatchNorm2d(3, device=device)
    buffers = layer.buffers()
    layer(tensor(normal(4, 3, 5, 2, dtype="float32"), device)).sum().backward()
    assert layer.buffers() == buffers
    for buffer in buffers:
        assert buffer.is_leaf()
        assert not buffer.requires_grad
        assert buffer.grad is None


def test_batch_norm_tracks_under_no_grad_too(device):
    layer = nn.BatchNorm1d(2, momentum=1.0, device=device)
    with ndl.no_grad():
        layer(tensor(np.array([[1, 2], [3, 6]], np.float32), device))
    np.testing.assert_allclose(layer.running_mean.numpy(), [2, 4])
    np.testing.assert_allclose(layer.running_var.numpy(), [1, 4])


def test_batch_norm_is_exact_far_from_zero(device):
    x = normal(64, 2, dtype="float32") * np.float32(0.1) + np.float32(1000)
    y = nn.BatchNorm1d(2, device=device)(tensor(x, device)).numpy()
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=5e-3)


# ---- errors ----------------------------------------------------------------------------------------------------------


ERRORS = [
    (lambda: nn.LayerNorm1d(0), ValueError, "LayerNorm1d: dim must be at least 1, but got 0"),
    (lambda: nn.LayerNorm1d((2, 3)), TypeError, "LayerNorm1d: dim must be an integer, but got (2, 3)"),
    (lambda: nn.LayerNorm1d(3, -1), ValueError, "LayerNorm1d: eps must lie in [0, inf], but got -1"),
    (
        lambda: nn.LayerNorm1d(3)(ndl.zeros(3, 2)),
        ValueError,
        "layer_norm: x must end in the axes (3,), but got shape (3, 2)",
    ),
    (
        lambda: nn.LayerNorm1d(3)(ndl.zeros(2, 3).astype("int64")),
        TypeError,
        "LayerNorm1d: x must have a floating dtype, but got int64",
    ),
    (lambda: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: dim must be at least 1, but got 0"),
    (lambda: nn.BatchNorm1d(3, momentum=2), ValueError, "BatchNorm1d: momentum must lie in [0, 1], but got 2"),
    (lambda: nn.BatchNorm1d(3, eps=-1), ValueError, "BatchNorm1d: eps must lie in [0, inf], but got -1"),
    (
        lambda: nn.BatchNorm1d(3)(ndl.zeros(2, 3, 4, 4)),
        ValueError,
        "BatchNorm1d: x must have 2 or 3 axes and 3 channels, but got shape (2, 3, 4, 4)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(ndl.zeros(2, 3)),
        ValueError,
        "BatchNorm2d: x must have 4 axes and 3 channels, but got shape (2, 3)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(ndl.zeros(2, 1, 4, 4)),
        ValueError,
        "BatchNorm2d: x must have 4 axes and 3 channels, but got shape (2, 1, 4, 4)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(ndl.zeros(1, 3, 1, 1)),
        ValueError,
        "BatchNorm2d: each channel must have more than 1 value in training, but got x (1, 3, 1, 1)",
    ),
    (
        lambda: nn.BatchNorm2d(3, eps=0)(ndl.zeros(2, 3, 1, 1)),
        ValueError,
        "BatchNorm2d: eps must lie in (0, inf], but got 0.0",
    ),
    (
        lambda: nn.BatchNorm1d(3)(ndl.zeros(2, 3, dtype="int64")),
        TypeError,
        "BatchNorm1d: x must have a floating dtype, but got int64",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
