"""Scaled dot-product attention: against torch to second order, at its extremes, and its errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle.backend import to_host
from tests.nn.functional.alike import check_function, check_signature, normal, raises

HINT = '; .astype("float32") converts'  # where float32 meets float64

Q, K, V = normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2)
MASK = normal(3, 5, seed=1) > 0
MASK[:, 0] = True
SOME_ROWS_MASKED = MASK & [[True], [False], [True]]
SCORES = np.where(MASK, normal(2, 3, 5), -np.inf)

# (function, inputs that are differentiated, constants, options)
ROWS = {
    "attention": ("scaled_dot_product_attention", [Q, K, V], [], {}),
    "attention, two axes": ("scaled_dot_product_attention", [Q[0], K[0], V[0]], [], {}),
    "attention, causal": ("scaled_dot_product_attention", [Q, K, V], [], {"is_causal": True}),
    "attention, causal, tall": ("scaled_dot_product_attention", [K, Q, V[:, :3]], [], {"is_causal": True}),
    "attention, scale": ("scaled_dot_product_attention", [Q, K, V], [], {"scale": -0.3}),
    "attention, bools": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": MASK}),
    "attention, row of bools": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": MASK[:1]}),
    "attention, all keys masked": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": SOME_ROWS_MASKED}),
    "attention, numbers": ("scaled_dot_product_attention", [Q, K, V, normal(3, 5)], [], {}),
    "attention, infinities": ("scaled_dot_product_attention", [Q, K, V], [], {"attn_mask": SCORES}),
    "attention, broadcast": ("scaled_dot_product_attention", [normal(3, 1, 2, 4), K, V], [], {}),
}


@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, device):
    name, inputs, constants, options = ROWS[row]
    check_function(name, inputs, device, constants, options, rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": np.ones((3, 0), bool)}], ids=repr)
def test_without_keys_the_result_is_zeros(options, device):
    q, k, v = (ndl.ones(2, *shape, device=device) for shape in ((3, 4), (0, 4), (0, 5)))
    options = {name: ndl.Tensor(x, device=device) if name == "attn_mask" else x for name, x in options.items()}
    y = ndl.nn.functional.scaled_dot_product_attention(q, k, v, **options)
    assert y.numpy().tolist() == np.zeros((2, 3, 5)).tolist()


def test_signature_matches_torch():
    expected = dict.fromkeys(("query", "key", "value"), inspect.Parameter.empty)
    expected |= {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None}
    check_signature(F.scaled_dot_product_attention, torch.nn.functional.scaled_dot_product_attention, expected)


def test_attention_to_large_scores(device):
    q, k, v = (ndl.Tensor(array.astype("float32"), device=device) for array in (1e4 * Q, 1e4 * K, V))
    actual = F.scaled_dot_product_attention(q, k, v)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(array.astype("float32")) for array in (1e4 * Q, 1e4 * K, V))
    )
    assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-5)
    actual.sum().backward()
    assert all(np.isfinite(x.grad.numpy()).all() for x in (q, k, v))


def test_a_query_without_keys_yields_zero_and_zero_derivatives(device):
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
    keep = to_host(device.draws((2, 3, 5))) <= 0.7
    ndl.seed(3)
    assert_allclose(F.scaled_dot_product_attention(q, k, v, dropout_p=0.3).numpy(), weights * keep / 0.7)
    assert_array_equal(F.scaled_dot_product_attention(q, k, v, dropout_p=1).numpy(), np.zeros((2, 3, 5)))


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


def attend(q=(2, 3, 4), k=(2, 5, 4), v=(2, 5, 2), **options):
    return lambda: F.scaled_dot_product_attention(zeros(*q), zeros(*k), zeros(*v), **options)


ATTEND = "scaled_dot_product_attention"
NEED = f"{ATTEND}: query (…, L, E), key (…, S, E) and value (…, S, V) are needed, but got query"

ERRORS = [
    (
        attend(q=(4,), k=(5, 4), v=(5, 2)), ValueError,
        f"{ATTEND}: query, key and value must have at least 2 axes, but got query (4,), key (5, 4) and value (5, 2)",
    ),
    (attend(q=(2, 3, 3)), ValueError, f"{NEED} (2, 3, 3), key (2, 5, 4) and value (2, 5, 2)"),
    (attend(v=(2, 4, 2)), ValueError, f"{NEED} (2, 3, 4), key (2, 5, 4) and value (2, 4, 2)"),
    (attend(v=(3, 5, 2)), ValueError, f"{ATTEND}: shapes must broadcast, but got (2,) and (2,) and (3,)"),
    (
        lambda: F.scaled_dot_product_attention(zeros(3, 4), zeros(5, 4, dtype="float64"), zeros(5, 2)), TypeError,
        (f"{ATTEND}: query and key and value must have one floating dtype, but got float32 and float64 and float32"
        f"{HINT}"),
    ),
    (attend(dropout_p=1.5), ValueError, f"{ATTEND}: dropout_p must lie in [0, 1], but got 1.5"),
    (attend(scale="a"), TypeError, f"{ATTEND}: scale must be a number, but got 'a'"),
    (
        attend(attn_mask=zeros(3, 5), is_causal=True), ValueError,
        f"{ATTEND}: attn_mask and is_causal exclude each other, but got both",
    ),
    (
        attend(attn_mask=zeros(3, 5, dtype="int64")), TypeError,
        (
            f"{ATTEND}: query and key and value and attn_mask must have one floating dtype, but got "
            "float32 and float32 and float32 and int64"
        ),
    ),
    (attend(attn_mask=zeros(2, 2)), ValueError, f"{ATTEND}: shapes must broadcast, but got (2, 2) and (2, 3, 5)"),
    (
        attend(attn_mask=zeros(2, 2, 3, 5)), ValueError,
        f"{ATTEND}: attn_mask must broadcast to the scores (2, 3, 5), but got shape (2, 2, 3, 5)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
