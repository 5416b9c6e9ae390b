"""Embedding and one-hot rows: against torch to second order, as a module, and their errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import check_module, check_signature, normal, raises

NEEDED = inspect.Parameter.empty


@pytest.mark.parametrize(("name", "hidden"), [("embedding", None), ("one_hot", {"x": NEEDED, "num_classes": -1})])
def test_signature_matches_torch(name, hidden):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name), hidden)


@pytest.mark.parametrize("padding_idx", [None, 0, 2, -1])
@pytest.mark.parametrize("shape", [(), (4,), (3, 2)], ids=str)
def test_embedding_matches_torch(shape, padding_idx, device):
    table, indices = normal(4, 3), np.random.default_rng(0).integers(0, 4, shape)
    weight, torch_weight = ndl.Tensor(table, device=device), torch.from_numpy(table).requires_grad_()
    actual = F.embedding(ndl.Tensor(indices, device=device), weight, padding_idx)
    expected = torch.nn.functional.embedding(torch.from_numpy(np.asarray(indices)), torch_weight, padding_idx)
    assert_array_equal(actual.numpy(), expected.detach().numpy())
    (actual * actual).sum().backward()
    (torch_first,) = torch.autograd.grad((expected * expected).sum(), torch_weight, create_graph=True)
    assert_allclose(weight.grad.numpy(), torch_first.detach().numpy())
    first = weight.grad
    (first * first).sum().backward()
    (second,) = torch.autograd.grad((torch_first * torch_first).sum(), torch_weight)
    assert_allclose(weight.grad.numpy(), second.numpy())


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding_of_an_empty_tensor(padding_idx, device):
    weight = ndl.Tensor(normal(4, 3), device=device)
    rows = F.embedding(ndl.zeros(2, 0, device=device), weight, padding_idx)
    assert rows.shape == (2, 0, 3)
    rows.sum().backward()
    assert_array_equal(weight.grad.numpy(), np.zeros((4, 3)))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
def test_indices_may_be_of_any_dtype(dtype, device):
    indices = np.array([[3, 0], [1, 1]])
    x = ndl.Tensor(indices.astype(dtype), device=device)
    assert_array_equal(F.embedding(x, ndl.Tensor(normal(4, 3), device=device)).numpy(), normal(4, 3)[indices])
    actual, expected = F.one_hot(x), torch.nn.functional.one_hot(torch.from_numpy(indices))
    assert_array_equal(actual.numpy(), expected.numpy(), strict=True)


@pytest.mark.parametrize("num_classes", [-1, 3, 5])
@pytest.mark.parametrize("values", [1, [2, 0], [[0], [1]], [[[2]]]])
def test_one_hot_matches_torch(values, num_classes, device):
    actual = F.one_hot(ndl.Tensor(np.array(values), device=device), num_classes)
    expected = torch.nn.functional.one_hot(torch.tensor(values), num_classes)
    assert_array_equal(actual.numpy(), expected.numpy(), strict=True)
    assert not actual.requires_grad


@pytest.mark.parametrize("num_classes", [0, 1, 4])
def test_one_hot_of_an_empty_tensor(num_classes, device):
    assert F.one_hot(ndl.zeros(2, 0, device=device, dtype="int64"), num_classes).shape == (2, 0, num_classes)


# ---- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda nn: nn.Embedding(4, 3), lambda nn: nn.Embedding(4, 3, padding_idx=-2)], ids=["plain", "padding"]
)
def test_embedding_module_matches_torch(make, device):
    check_module(make, [], device, constants=[np.array([[3, 0, 2], [1, 1, 3]])])


def test_embedding_module_draws_once_and_pads_with_zeros(device):
    np.random.seed(4)
    expected = np.random.randn(4, 3).astype("float32")
    following = np.random.rand()
    np.random.seed(4)
    layer = nn.Embedding(4, 3, padding_idx=-1, device=device)
    assert np.random.rand() == following
    expected[3] = 0
    assert_array_equal(layer.weight.numpy(), expected, strict=True)
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.padding_idx == 3
    layer(ndl.Tensor([3, 0], device=device)).sum().backward()
    assert layer.weight.grad.numpy().tolist() == [[1] * 3, [0] * 3, [0] * 3, [0] * 3]


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


ERRORS = [
    (
        lambda: F.embedding(ndl.Tensor([0]), zeros(3)), ValueError,
        "embedding: weight must be a matrix (n, d), but got shape (3,)",
    ),
    (
        lambda: F.embedding(ndl.Tensor([0, 3]), zeros(3, 2)), ValueError,
        "embedding: indices must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: F.embedding(ndl.Tensor([-1, 2]), zeros(3, 2)), ValueError,
        "embedding: indices must lie in [0, 2], but got -1 to 2",
    ),
    (
        lambda: F.embedding(ndl.Tensor([0.5]), zeros(3, 2)), ValueError,
        "embedding: indices must be integers, but got 0.5",
    ),
    (
        lambda: F.embedding(ndl.Tensor([float("inf")]), zeros(3, 2)), ValueError,
        "embedding: indices must be integers, but got inf",
    ),
    (
        lambda: F.embedding(ndl.Tensor([True]), zeros(3, 2)), TypeError,
        "embedding: indices must be integers, but got dtype bool",
    ),
    (
        lambda: F.embedding(ndl.Tensor([0]), zeros(3, 2), 3), ValueError,
        "embedding: padding_idx must lie in [-3, 2], but got 3",
    ),
    (
        lambda: F.one_hot(ndl.Tensor([0, -1])), ValueError, "one_hot: indices must lie in [0, 0], but got -1 to 0",
    ),
    (
        lambda: F.one_hot(ndl.Tensor([0, 3]), 3), ValueError, "one_hot: indices must lie in [0, 2], but got 0 to 3",
    ),
    (lambda: F.one_hot(ndl.Tensor([0]), 0), ValueError, "one_hot: indices must lie in [0, -1], but got 0 to 0"),
    (lambda: F.one_hot(ndl.Tensor([0]), -2), ValueError, "one_hot: num_classes must be at least -1, but got -2"),
    (lambda: F.one_hot(ndl.Tensor([0.5])), ValueError, "one_hot: indices must be integers, but got 0.5"),
    (
        lambda: F.one_hot(zeros(0)), ValueError,
        "one_hot: num_classes must be passed for an empty x, but got x of shape (0,)",
    ),
    (lambda: nn.Embedding(0, 3), ValueError, "Embedding: num_embeddings must be at least 1, but got 0"),
    (lambda: nn.Embedding(3, 0), ValueError, "Embedding: embedding_dim must be at least 1, but got 0"),
    (
        lambda: nn.Embedding(3, 3, padding_idx=-4), ValueError,
        "Embedding: padding_idx must lie in [-3, 2], but got -4",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
