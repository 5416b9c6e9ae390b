"""Cosine similarity: against torch to second order, as a module, at its extremes, and its errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import check_function, check_module, check_signature, normal, raises

# (function, inputs that are differentiated, constants, options)
ROWS = {
    "cosine": ("cosine_similarity", [normal(3, 4), normal(3, 4, seed=1)], [], {}),
    "cosine, axis": ("cosine_similarity", [normal(3, 4, 2), normal(3, 4, 2, seed=1)], [], {"dim": 0}),
    "cosine, vectors": ("cosine_similarity", [normal(4), normal(4, seed=1)], [], {"dim": -1}),
    "cosine, numbers": ("cosine_similarity", [np.array(2.0), np.array(-3.0)], [], {"dim": 0}),
    "cosine, broadcast": ("cosine_similarity", [normal(3, 1, 4), normal(2, 4, seed=1)], [], {"dim": 2}),
}


@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, device):
    name, inputs, constants, options = ROWS[row]
    check_function(name, inputs, device, constants, options, rtol=1e-9)


def test_signatures_match_torch():
    expected = {"x1": inspect.Parameter.empty, "x2": inspect.Parameter.empty, "dim": 1, "eps": 1e-8}
    check_signature(F.cosine_similarity, torch.nn.functional.cosine_similarity, expected)
    check_signature(nn.CosineSimilarity, torch.nn.CosineSimilarity)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosine_similarity_with_zero_matches_torch(dtype, device):
    zero, other = np.zeros((2, 3), dtype), normal(2, 3).astype(dtype)
    x, y = ndl.Tensor(zero, device=device), ndl.Tensor(other, device=device)
    torch_x, torch_y = (torch.from_numpy(array).requires_grad_() for array in (zero, other))
    F.cosine_similarity(x, y).sum().backward()
    torch.nn.functional.cosine_similarity(torch_x, torch_y).sum().backward()
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6)
    assert_allclose(y.grad.numpy(), torch_y.grad.numpy(), atol=1e-12)
    x.grad.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_cosine_similarity_neither_overflows_nor_vanishes(size, device):
    x, y = (ndl.Tensor((size * np.array([[3.0, 4.0]])).astype("float32"), device=device) for _ in range(2))
    assert_allclose(F.cosine_similarity(x, y, eps=0).numpy(), [1], rtol=1e-6)


@pytest.mark.parametrize("make", [lambda nn: nn.CosineSimilarity(), lambda nn: nn.CosineSimilarity(0, 1e-3)])
def test_cosine_similarity_module_matches_torch(make, device):
    check_module(make, [normal(3, 4), normal(3, 4, seed=1)], device)


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


ERRORS = [
    (
        lambda: F.cosine_similarity(zeros(2, dtype="int64"), zeros(2)), TypeError,
        "cosine_similarity: x1 must have a floating dtype, but got int64",
    ),
    (
        lambda: F.cosine_similarity(zeros(2), zeros(2, dtype="int64")), TypeError,
        "cosine_similarity: x2 must have a floating dtype, but got int64",
    ),
    (
        lambda: F.cosine_similarity(zeros(2), zeros(2)), ValueError,
        "cosine_similarity: dim must lie in [-1, 0], but got 1",
    ),
    (
        lambda: F.cosine_similarity(zeros(2, 3), zeros(2, 4)), ValueError,
        "cosine_similarity: shapes must broadcast, but got (2, 3) and (2, 4)",
    ),
    (
        lambda: F.cosine_similarity(zeros(2, 3), zeros(2, 3), eps=-1), ValueError,
        "cosine_similarity: eps must lie in [0, inf], but got -1",
    ),
    (lambda: nn.CosineSimilarity("a"), TypeError, "CosineSimilarity: dim must be an integer, but got 'a'"),
    (lambda: nn.CosineSimilarity(eps=-1), ValueError, "CosineSimilarity: eps must lie in [0, inf], but got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
