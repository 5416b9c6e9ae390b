"""Linear maps, tables, similarity and attention: against torch to second order, as modules, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from needle.backend import to_host
from tests.nn.functional.alike import check_function, check_module, check_signature, normal, raises

Q, K, V = normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2)
SEEN = normal(3, 5, seed=1) > 0
SEEN[:, 0] = True
BLIND = SEEN & [[True], [False], [True]]
SCORES = np.where(SEEN, normal(2, 3, 5), -np.inf)

# (function, inputs that are differentiated, constants, options)
ROWS = {
    "linear": ("linear", [normal(3, 4), normal(2, 4), normal(2)], [], {}),
    "linear, no bias": ("linear", [normal(3, 2, 4), normal(2, 4)], [], {}),
    "linear, vector": ("linear", [normal(4), normal(2, 4), normal(2)], [], {}),
    "linear, vector weight": ("linear", [normal(3, 4), normal(4)], [], {}),
    "linear, broad bias": ("linear", [normal(2, 3, 4), normal(2, 4), normal(3, 2)], [], {}),
    "cosine": ("cosine_similarity", [normal(3, 4), normal(3, 4, seed=1)], [], {}),
    "cosine, axis": ("cosine_similarity", [normal(3, 4, 2), normal(3, 4, 2, seed=1)], [], {"dim": 0}),
    "cosine, vectors": ("cosine_similarity", [normal(4), normal(4, seed=1)], [], {"dim": -1}),
    "cosine, broadcast": ("cosine_similarity", [normal(3, 1, 4), normal(2, 4, seed=1)], [], {"dim": 2}),
    "attention": ("scaled_dot_product_attention", [Q, K, V], [], {}),
    "attention, two axes": ("scaled_dot_product_attention", [Q[0], K[0], V[0]], [], {}),
    "attention, causal": ("scaled_dot_product_attention", [Q, K, V], [], {"is_causal": True}),
    "attention, causal, tall": ("scaled_dot_product_attention", [K, Q, V[:, :3]], [], {"is_causal": True}),
    "attention, scale": ("scaled_dot_product_attention", [Q, K, V], [], {"scale": -0.3}),
    "attention, bools": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": SEEN}),
    "attention, row of bools": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": SEEN[:1]}),
    "attention, blind": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": BLIND}),
    "attention, numbers": ("scaled_dot_product_attention", [Q, K, V, normal(3, 5)], [], {}),
    "attention, infinities": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": SCORES}),
    "attention, broadcast": ("scaled_dot_product_attention", [normal(3, 1, 2, 4), K, V], [], {}),
}


@pytest.mark.parametrize("row", ROWS)
def test_function_is_that_of_torch(row, device):
    name, inputs, constants, options = ROWS[row]
    check_function(name, inputs, device, constants, options, rtol=1e-9)


NEEDED = inspect.Parameter.empty
SIGNATURES = {
    "linear": {"x": NEEDED, "weight": NEEDED, "bias": None},
    "embedding": None,
    "one_hot": {"x": NEEDED, "num_classes": -1},
    "cosine_similarity": {"x1": NEEDED, "x2": NEEDED, "dim": 1, "eps": 1e-8},
    "scaled_dot_product_attention": {
        **dict.fromkeys(("query", "key", "value"), NEEDED), "attn_mask": None, "dropout_p": 0.0, "is_causal": False,
        "scale": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_that_of_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name), SIGNATURES[name])


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_idx", [None, 0, 2, -1])
@pytest.mark.parametrize("shape", [(), (4,), (3, 2)], ids=str)
def test_embedding_is_that_of_torch(shape, padding_idx, device):
    table, indices = normal(4, 3), np.random.default_rng(0).integers(0, 4, shape)
    weight, torch_weight = ndl.Tensor(table, device=device), torch.from_numpy(table).requires_grad_()
    found = F.embedding(ndl.Tensor(indices, device=device), weight, padding_idx)
    expected = torch.nn.functional.embedding(torch.from_numpy(np.asarray(indices)), torch_weight, padding_idx)
    assert_array_equal(found.numpy(), expected.detach().numpy())
    (found * found).sum().backward()
    (torch_first,) = torch.autograd.grad((expected * expected).sum(), torch_weight, create_graph=True)
    assert_allclose(weight.grad.numpy(), torch_first.detach().numpy())
    first = weight.grad
    (first * first).sum().backward()
    (second,) = torch.autograd.grad((torch_first * torch_first).sum(), torch_weight)
    assert_allclose(weight.grad.numpy(), second.numpy())


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding_of_nothing(padding_idx, device):
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
    found, expected = F.one_hot(x), torch.nn.functional.one_hot(torch.from_numpy(indices))
    assert_array_equal(found.numpy(), expected.numpy(), strict=True)


@pytest.mark.parametrize("num_classes", [-1, 3, 5])
@pytest.mark.parametrize("values", [1, [2, 0], [[0], [1]], [[[2]]]])
def test_one_hot_is_that_of_torch(values, num_classes, device):
    found = F.one_hot(ndl.Tensor(np.array(values), device=device), num_classes)
    expected = torch.nn.functional.one_hot(torch.tensor(values), num_classes)
    assert_array_equal(found.numpy(), expected.numpy(), strict=True)
    assert not found.requires_grad


@pytest.mark.parametrize("num_classes", [0, 1, 4])
def test_one_hot_of_nothing(num_classes, device):
    assert F.one_hot(ndl.zeros(2, 0, device=device, dtype="int64"), num_classes).shape == (2, 0, num_classes)


# ---- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosine_similarity_with_zero_is_that_of_torch(dtype, device):
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


def test_attention_to_large_scores(device):
    q, k, v = (ndl.Tensor(array.astype("float32"), device=device) for array in (1e4 * Q, 1e4 * K, V))
    found = F.scaled_dot_product_attention(q, k, v)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(array.astype("float32")) for array in (1e4 * Q, 1e4 * K, V))
    )
    assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)
    found.sum().backward()
    assert all(np.isfinite(x.grad.numpy()).all() for x in (q, k, v))


def test_attention_of_the_blind_is_zero_and_has_zero_derivatives(device):
    q, k, v = (ndl.Tensor(array, device=device) for array in (Q, K, V))
    mask = ndl.Tensor(np.zeros((3, 5), bool), device=device)
    y = F.scaled_dot_product_attention(q, k, v, mask)
    assert_array_equal(y.numpy(), np.zeros((2, 3, 2)))
    y.sum().backward()
    assert all(not x.grad.numpy().any() for x in (q, k, v))


def test_attention_drops_weights_as_dropout_does(device):
    q, k = (ndl.Tensor(array, device=device) for array in (Q, K))
    v = ndl.Tensor(np.broadcast_to(np.eye(5), (2, 5, 5)), device=device)
    weights = F.scaled_dot_product_attention(q, k, v).numpy()
    ndl.seed(3)
    keep = to_host(device.xp.random.random_sample((2, 3, 5))) <= 0.7
    ndl.seed(3)
    assert_allclose(F.scaled_dot_product_attention(q, k, v, dropout_p=0.3).numpy(), weights * keep / 0.7)
    assert_array_equal(F.scaled_dot_product_attention(q, k, v, dropout_p=1).numpy(), np.zeros((2, 3, 5)))


# ---- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda nn: nn.Embedding(4, 3), lambda nn: nn.Embedding(4, 3, padding_idx=-2)], ids=["plain", "padding"]
)
def test_embedding_module_is_that_of_torch(make, device):
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


@pytest.mark.parametrize("make", [lambda nn: nn.CosineSimilarity(), lambda nn: nn.CosineSimilarity(0, 1e-3)])
def test_cosine_similarity_module_is_that_of_torch(make, device):
    check_module(make, [normal(3, 4), normal(3, 4, seed=1)], device)


@pytest.mark.parametrize("name", ["CosineSimilarity"])  # Embedding keeps the order of the course
def test_signature_of_module_is_that_of_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


def attend(q=(2, 3, 4), k=(2, 5, 4), v=(2, 5, 2), **options):
    return lambda: F.scaled_dot_product_attention(zeros(*q), zeros(*k), zeros(*v), **options)


ATTEND = "scaled_dot_product_attention"
NEED = f"{ATTEND}: query (…, L, E), key (…, S, E) and value (…, S, V) are needed, but got query"

ERRORS = [
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 3)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got (3, 4) and (2, 3)",
    ),
    (
        lambda: F.linear(zeros(4), zeros(2, 2, 4)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got (4,) and (2, 2, 4)",
    ),
    (
        lambda: F.linear(zeros(), zeros(2, 4)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got () and (2, 4)",
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4, dtype="float64")), TypeError,
        "linear: x and weight must have one floating dtype, but got float32 and float64",
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4), zeros(2, dtype="int64")), TypeError,
        "linear: x and bias must have one floating dtype, but got float32 and int64",
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4), zeros(3)), ValueError,
        "linear: shapes must broadcast, but got (3,) and (3, 2)",
    ),
    (
        lambda: F.linear(zeros(4), zeros(2, 4), zeros(3, 2)), ValueError,
        "linear: bias must broadcast to the result (2,), but got shape (3, 2)",
    ),
    (
        lambda: F.linear(zeros(1, 4), zeros(1, 4), zeros(3)), ValueError,
        "linear: bias must broadcast to the result (1, 1), but got shape (3,)",
    ),
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
        "one_hot: num_classes must be given for no integers, but got x of shape (0,)",
    ),
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
    (
        attend(q=(4,), k=(5, 4), v=(5, 2)), ValueError,
        f"{ATTEND}: query, key and value must have at least 2 axes, but got query (4,), key (5, 4) and value (5, 2)",
    ),
    (attend(q=(2, 3, 3)), ValueError, f"{NEED} (2, 3, 3), key (2, 5, 4) and value (2, 5, 2)"),
    (attend(v=(2, 4, 2)), ValueError, f"{NEED} (2, 3, 4), key (2, 5, 4) and value (2, 4, 2)"),
    (attend(k=(2, 0, 4), v=(2, 0, 2)), ValueError, f"{NEED} (2, 3, 4), key (2, 0, 4) and value (2, 0, 2)"),
    (attend(v=(3, 5, 2)), ValueError, f"{ATTEND}: shapes must broadcast, but got (2,) and (2,) and (3,)"),
    (
        lambda: F.scaled_dot_product_attention(zeros(3, 4), zeros(5, 4, dtype="float64"), zeros(5, 2)), TypeError,
        f"{ATTEND}: query and key and value must have one floating dtype, but got float32 and float64 and float32",
    ),
    (attend(dropout_p=1.5), ValueError, f"{ATTEND}: dropout_p must lie in [0, 1], but got 1.5"),
    (attend(scale="a"), TypeError, f"{ATTEND}: scale must be a number, but got 'a'"),
    (
        attend(attn_mask=zeros(3, 5), is_causal=True), ValueError,
        f"{ATTEND}: attn_mask and is_causal exclude each other, but got both",
    ),
    (
        attend(attn_mask=zeros(3, 5, dtype="int64")), TypeError,
        f"{ATTEND}: query and attn_mask must have one floating dtype, but got float32 and int64",
    ),
    (attend(attn_mask=zeros(2, 2)), ValueError, f"{ATTEND}: shapes must broadcast, but got (2, 2) and (2, 3, 5)"),
    (
        attend(attn_mask=zeros(2, 2, 3, 5)), ValueError,
        f"{ATTEND}: attn_mask must broadcast to the scores (2, 3, 5), but got shape (2, 2, 3, 5)",
    ),
    (lambda: nn.Embedding(0, 3), ValueError, "Embedding: num_embeddings must be at least 1, but got 0"),
    (lambda: nn.Embedding(3, 0), ValueError, "Embedding: embedding_dim must be at least 1, but got 0"),
    (
        lambda: nn.Embedding(3, 3, padding_idx=-4), ValueError,
        "Embedding: padding_idx must lie in [-3, 2], but got -4",
    ),
    (lambda: nn.CosineSimilarity("a"), TypeError, "CosineSimilarity: dim must be an integer, but got 'a'"),
    (lambda: nn.CosineSimilarity(eps=-1), ValueError, "CosineSimilarity: eps must lie in [0, inf], but got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
