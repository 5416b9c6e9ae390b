"""Attention and the Transformer: against torch to second order, their draws, parameters and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as torch_functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import needle as ndl
from needle import nn, ops
from needle.nn import functional
from tests.nn.compare import assert_draws, assert_floats_are, uniform
from tests.nn.functional.alike import normal, raises
from tests.ops.derivatives import assert_like_torch

HINT = '; .astype("float32") converts'  # where float32 meets float64

FLOAT32_MAX = float(np.finfo("float32").max)
SEED = 11


def flat(tensors):
    """Tensors of needle or of torch as one vector."""
    parts = [part.reshape((-1,)) for part in tensors]
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else ops.concatenate(parts)


def attend(q, k, v, causal, drop):
    """The documented formula, in torch; the result and the weights."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        queries, keys = scores.shape[-2:]
        scores = scores - torch.triu(torch.ones(queries, keys, dtype=q.dtype), keys - queries + 1) * FLOAT32_MAX
    weights = drop(torch.softmax(scores, -1))
    return weights @ v, weights


class Dropping:
    """Dropout in torch with needle's draws: one per call, in the order of the calls."""

    def __init__(self, p):
        self.p = p
        self.stream = np.random.RandomState(SEED)

    def __call__(self, x):
        return x * torch.from_numpy((self.stream.rand(*x.shape) <= 1 - self.p) / (1 - self.p)).to(x.dtype)


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3), (1, 2)])
def test_multi_head_attention_is_the_formula(queries, keys, causal, p, device):
    layer = nn.MultiHeadAttention(dropout=p, causal=causal, device=device)

    def function(q, k, v):
        np.random.seed(SEED)
        return flat(layer(q, k, v))

    def torch_function(q, k, v):
        return flat(attend(q, k, v, causal, Dropping(p)))

    arrays = [normal(2, 3, queries, 4), normal(2, 3, keys, 4, seed=1), normal(2, 3, keys, 2, seed=2)]
    assert_like_torch(function, torch_function, arrays, device)


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_equals_torch(causal, device):
    def function(*x):
        return nn.MultiHeadAttention(causal=causal)(*x)[0]

    def torch_function(*x):
        with sdpa_kernel(SDPBackend.MATH):  # the one that torch can differentiate twice
            return torch_functional.scaled_dot_product_attention(*x, is_causal=causal)

    assert_like_torch(function, torch_function, [normal(2, 3, 4, 5, seed=i) for i in range(3)], device)


def test_the_weights_are_returned_after_dropout(device):
    q = ndl.Tensor(normal(2, 3, 4, 5), device=device)
    layer = nn.MultiHeadAttention(dropout=0.5)
    np.random.seed(SEED)
    keep = np.random.rand(2, 3, 4, 4) <= 0.5
    np.random.seed(SEED)
    _, weights = layer(q, q, q)
    assert_array_equal(weights.numpy() != 0, keep)
    _, weights = layer.eval()(q, q, q)
    assert_allclose(weights.numpy().sum(-1), np.ones((2, 3, 4)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_query_without_keys_attends_to_all_equally(dtype, device):
    """The mask is finite: of 4 queries and 2 keys, the first two may attend to no key, and weigh all keys equally."""
    q, k = (ndl.Tensor(normal(1, 1, n, 2).astype(dtype), device=device) for n in (4, 2))
    _, weights = nn.MultiHeadAttention(causal=True)(q, k, k)
    assert weights.dtype == dtype
    assert weights.numpy()[0, 0, :3].tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0]]
    assert (weights.numpy()[0, 0, 3] > 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mask_and_a_score_never_overflow(dtype, device):
    """Warnings are errors; each score is -200."""
    q = k = ndl.ones(1, 1, 3, 4, device=device).astype(dtype)
    _, weights = nn.MultiHeadAttention(causal=True)(q * 10, k * -10, k)
    expected = np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None]
    assert_allclose(weights.numpy()[0, 0], expected, rtol=1e-3)


def test_heads_and_the_function_of_torchs_name_share_their_nodes(device):
    q = ndl.Tensor(normal(1, 2, 3, 4), device=device)

    def ops_of(y):
        return [node.op for node in ndl.autograd.find_topo_sort([y]) if node.op is not None]

    assert ops_of(nn.MultiHeadAttention().eval()(q, q, q)[0]) == ops_of(
        functional.scaled_dot_product_attention(q, q, q)
    )


# ---- layers ----------------------------------------------------------------------------------------------------------


def norm(x, weight, bias):
    return torch_functional.layer_norm(x, x.shape[-1:], weight, bias)


def attention_in_torch(values, q, k, v, heads, causal, drop):
    """The layer written out; `values` yields the parameters in the order of the contract."""
    norms = [(next(values), next(values)) for _ in range(3)]
    parts = [norm(x, *parameters) @ next(values) for x, parameters in zip((q, k, v), norms, strict=True)]
    parts = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in parts]
    result, _ = attend(*parts, causal, drop)
    return result.transpose(1, 2).flatten(2) @ next(values)


def layer_in_torch(values, x, heads, causal, drop):
    x = x + drop(attention_in_torch(values, x, x, x, heads, causal, drop))
    hidden = norm(x, next(values), next(values)) @ next(values) + next(values)
    return x + drop(drop(torch.relu(hidden)) @ next(values) + next(values))


def check_layer(layer, written, inputs, device, dtype="float64"):
    """Compare a layer with `written(values, *inputs)`: values, first and second derivatives by inputs and parameters.

    The parameters are loaded as a state; the random stream restarts at each call.
    """
    named = dict(layer.named_parameters())
    arrays = [normal(*p.shape, seed=i, scale=0.7) for i, p in enumerate(named.values())]
    owners = [(owner, name, getattr(owner, name)) for _, owner in layer.named_modules() for name in vars(owner)
              if isinstance(getattr(owner, name), nn.Parameter)]  # fmt: skip

    def function(*tensors):
        by_old = dict(zip(named.values(), tensors[len(inputs) :], strict=True))
        for owner, name, old in owners:
            setattr(owner, name, by_old[old])
        np.random.seed(SEED)
        y = layer(*tensors[: len(inputs)])
        return y[0] if isinstance(y, tuple) else y

    def torch_function(*tensors):
        values = iter(tensors[len(inputs) :])
        y = written(values, *tensors[: len(inputs)])
        assert next(values, None) is None
        return y

    arrays = [array.astype(dtype) for array in (*inputs, *arrays)]
    if dtype == "float64":
        assert_like_torch(function, torch_function, arrays, device, rtol=1e-8, atol=1e-9)
    else:
        y = function(*(ndl.Tensor(array, device=device) for array in arrays))
        assert_floats_are(dtype, [y])
        expected = torch_function(*(torch.from_numpy(array.astype("float64")) for array in arrays))
        assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_layer_of_one_input(causal, p, device):
    def written(values, x):
        drop = Dropping(p)
        return attention_in_torch(values, x, x, x, 2, causal, drop)

    layer = nn.AttentionLayer(5, 2, 3, dropout=p, causal=causal, device=device)
    check_layer(layer, written, [normal(2, 4, 5)], device)


def test_attention_layer_of_three_inputs(device):
    options = {"k_features": 4, "v_features": 6, "out_features": 7, "causal": False, "device": device}
    inputs = [normal(2, 3, 5), normal(2, 4, 4), normal(2, 4, 6)]
    layer = nn.AttentionLayer(5, 2, 3, **options)
    check_layer(layer, lambda values, *x: attention_in_torch(values, *x, 2, False, lambda y: y), inputs, device)


def test_missing_keys_and_missing_values_are_the_query(device):
    layer = nn.AttentionLayer(5, 2, 3, device=device, dtype="float64")
    x, other = (ndl.Tensor(normal(2, 4, 5, seed=i), device=device) for i in range(2))
    assert_array_equal(layer(x).numpy(), layer(x, x, x).numpy())
    assert_array_equal(layer(x, other).numpy(), layer(x, other, x).numpy())
    assert_array_equal(layer(x, v=other).numpy(), layer(x, x, other).numpy())


def test_attention_layers_are_causal_unless_told_otherwise(device):
    """Later steps do not change the results of earlier ones."""
    x = normal(2, 4, 5)
    y = x.copy()
    y[:, 3] += [3, 0, -1, 2, 1]  # not a constant, which the norm would remove
    for make in (lambda **o: nn.AttentionLayer(5, 2, 3, **o), lambda **o: nn.TransformerLayer(5, 2, 3, 4, **o),
                 lambda **o: nn.Transformer(5, 4, 2, batch_first=True, **o)):  # fmt: skip
        for options, same in ({}, True), ({"causal": False}, False):
            layer = make(device=device, dtype="float64", **options)
            first, second = (
                (out[0] if isinstance(out, tuple) else out).numpy()[:, :3]
                for out in (layer(ndl.Tensor(array, device=device)) for array in (x, y))
            )
            assert np.allclose(first, second, rtol=0, atol=1e-12) == same


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("p", [0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_transformer_layer_is_the_pre_norm_form(causal, p, dtype, device):
    layer = nn.TransformerLayer(5, 2, 3, 6, dropout=p, causal=causal, device=device)
    check_layer(
        layer, lambda values, x: layer_in_torch(values, x, 2, causal, Dropping(p)), [normal(2, 4, 5)], device, dtype
    )


@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_adds_positions_and_runs_its_layers(batch_first, device):
    def written(values, x):
        drop, positions = Dropping(0.2), next(values)
        x = (x if batch_first else x.transpose(0, 1)) + positions[: x.shape[batch_first]]
        for _ in range(2):
            x = layer_in_torch(values, x, 2, True, drop)
        return x if batch_first else x.transpose(0, 1)

    options = {"num_head": 2, "dim_head": 2, "dropout": 0.2, "batch_first": batch_first, "sequence_len": 6}
    layer = nn.Transformer(4, 5, 2, **options, device=device)
    check_layer(layer, written, [normal(3, 2, 4)], device)


def test_transformer_returns_zeros_as_state_and_ignores_its_argument(device):
    layer, x = nn.Transformer(4, 5, 1, device=device), ndl.ones(3, 2, 4, device=device)
    y, h = layer(x)
    assert_array_equal(h.numpy(), np.zeros((3, 2, 4), "float32"), strict=True)
    assert h.device == device
    assert_array_equal(layer(x, h + 1)[0].numpy(), y.numpy())


@pytest.mark.parametrize("make", [
    lambda: nn.Transformer(4, 5, 1, num_head=2, dim_head=3),
    lambda: nn.TransformerLayer(4, 2, 3, 5),
    lambda: nn.AttentionLayer(4, 2, 3),
])  # fmt: skip
def test_float64_in_float32_layers_is_refused(make):
    with pytest.raises(TypeError, match=r"^\w+: [xq] and weight must have one floating dtype, but got float64 and "):
        make()(ndl.Tensor(normal(3, 2, 4)))


# ---- parameters and draws --------------------------------------------------------------------------------------------


def norm_arrays(prefix, features):
    return {f"{prefix}.weight": np.ones(features), f"{prefix}.bias": np.zeros(features)}


def linear_arrays(prefix, inputs, outputs, bias=True):
    arrays = {f"{prefix}.weight": uniform(math.sqrt(6 / inputs), inputs, outputs)}
    return arrays | ({f"{prefix}.bias": uniform(math.sqrt(6 / outputs), outputs, 1).T} if bias else {})


def attention_arrays(prefix, q, k, v, inner, out):
    norms = {}
    for name, features in ("q", q), ("k", k), ("v", v):
        norms |= norm_arrays(f"{prefix}prenorm_{name}", features)
    for name, *sizes in ("q", q, inner), ("k", k, inner), ("v", v, inner), ("out", inner, out):
        norms |= linear_arrays(f"{prefix}{name}_projection", *sizes, bias=False)
    return norms


def layer_arrays(prefix, features, inner, hidden):
    arrays = attention_arrays(f"{prefix}attention.", features, features, features, inner, features)
    arrays |= norm_arrays(f"{prefix}norm", features)
    arrays |= linear_arrays(f"{prefix}linear1", features, hidden)
    return arrays | linear_arrays(f"{prefix}linear2", hidden, features)


def test_attention_layer_draws_its_projections_in_order(device):
    sizes = {"k_features": 4, "v_features": 6, "out_features": 7}
    assert_draws(
        lambda: nn.AttentionLayer(5, 2, 3, **sizes, device=device), lambda: attention_arrays("", 5, 4, 6, 6, 7)
    )
    assert_draws(lambda: nn.AttentionLayer(5, 2, 3, device=device), lambda: attention_arrays("", 5, 5, 5, 6, 5))


def test_transformer_layer_draws_attention_and_then_its_linear_layers(device):
    assert_draws(lambda: nn.TransformerLayer(5, 2, 3, 4, device=device), lambda: layer_arrays("", 5, 6, 4))


def test_transformer_draws_positions_and_then_its_layers(device):
    def arrays():
        positions = {"embedding.weight": np.random.randn(6, 5)}
        return positions | layer_arrays("layers.0.", 5, 6, 4) | layer_arrays("layers.1.", 5, 6, 4)

    assert_draws(
        lambda: nn.Transformer(5, 4, 2, num_head=2, dim_head=3, sequence_len=6, device=device), arrays
    )  # fmt: skip


def test_the_defaults_of_the_transformer():
    layer = nn.Transformer(5, 4, 1)
    assert layer.embedding.weight.shape == (2048, 5)
    assert layer.layers[0].attention.q_projection.weight.shape == (5, 8 * 32)


@pytest.mark.parametrize("p", [0, 0.4])
def test_a_layer_draws_for_four_dropouts_and_in_evaluation_for_none(p, device):
    layer, x = nn.TransformerLayer(5, 2, 3, 6, dropout=p, device=device), ndl.ones(2, 4, 5, device=device)
    np.random.seed(SEED)
    for shape in (2, 2, 4, 4), (2, 4, 5), (2, 4, 6), (2, 4, 5):
        np.random.rand(*shape)
    following = np.random.rand()
    np.random.seed(SEED)
    layer(x)
    assert np.random.rand() == following
    state = np.random.get_state()
    layer.eval()(x)
    np.testing.assert_equal(np.random.get_state(), state)


def test_state_goes_from_one_transformer_to_another(device):
    one, other = (nn.Transformer(4, 5, 2, sequence_len=3, device=device) for _ in range(2))
    x = ndl.Tensor(normal(3, 2, 4).astype("float32"), device=device)
    assert one(x)[0].numpy().tolist() != other(x)[0].numpy().tolist()
    other.load_state_dict(one.state_dict())
    assert_array_equal(one(x)[0].numpy(), other(x)[0].numpy())
    assert one.buffers() == []


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


def heads(q=(2, 3, 4, 5), k=(2, 3, 6, 5), v=(2, 3, 6, 2)):
    return lambda: nn.MultiHeadAttention()(zeros(*q), zeros(*k), zeros(*v))


def layers(q=(2, 4, 5), k=(2, 3, 5), v=(2, 3, 5)):
    return lambda: nn.AttentionLayer(5, 2, 3)(zeros(*q), zeros(*k), zeros(*v))


HEADS = "MultiHeadAttention: q (N, H, T, D), k (N, H, S, D) and v (N, H, S, E) are needed, but got"
LAYERS = "AttentionLayer: q (N, T, 5), k (N, S, 5) and v (N, S, 5) are needed, but got"

ERRORS = [
    (lambda: nn.MultiHeadAttention(dropout=1.5), ValueError,
     "MultiHeadAttention: dropout must lie in [0, 1], but got 1.5"),
    (heads(q=(3, 4, 5)), ValueError, f"{HEADS} (3, 4, 5), (2, 3, 6, 5) and (2, 3, 6, 2)"),
    (heads(q=(2, 1, 4, 5)), ValueError, f"{HEADS} (2, 1, 4, 5), (2, 3, 6, 5) and (2, 3, 6, 2)"),
    (heads(v=(1, 3, 6, 2)), ValueError, f"{HEADS} (2, 3, 4, 5), (2, 3, 6, 5) and (1, 3, 6, 2)"),
    (heads(k=(2, 3, 6, 4)), ValueError, f"{HEADS} (2, 3, 4, 5), (2, 3, 6, 4) and (2, 3, 6, 2)"),
    (heads(v=(2, 3, 5, 2)), ValueError, f"{HEADS} (2, 3, 4, 5), (2, 3, 6, 5) and (2, 3, 5, 2)"),
    (heads(k=(2, 3, 0, 5), v=(2, 3, 0, 2)), ValueError, f"{HEADS} (2, 3, 4, 5), (2, 3, 0, 5) and (2, 3, 0, 2)"),
    (lambda: nn.MultiHeadAttention()(*[zeros(1, 1, 2, 2)] * 2, zeros(1, 1, 2, 2, dtype="float64")), TypeError,
     "MultiHeadAttention: q and k and v must have one floating dtype, but got float32 and float32 and float64" + HINT),
    (lambda: nn.AttentionLayer(0, 2, 3), ValueError, "AttentionLayer: q_features must be at least 1, but got 0"),
    (lambda: nn.AttentionLayer(5, 0, 3), ValueError, "AttentionLayer: num_head must be at least 1, but got 0"),
    (lambda: nn.AttentionLayer(5, 2, 1.5), TypeError, "AttentionLayer: dim_head must be an integer, but got 1.5"),
    (lambda: nn.AttentionLayer(5, 2, 3, k_features=0), ValueError,
     "AttentionLayer: k_features must be at least 1, but got 0"),
    (lambda: nn.AttentionLayer(5, 2, 3, v_features=-1), ValueError,
     "AttentionLayer: v_features must be at least 1, but got -1"),
    (lambda: nn.AttentionLayer(5, 2, 3, out_features="a"), TypeError,
     "AttentionLayer: out_features must be an integer, but got 'a'"),
    (lambda: nn.AttentionLayer(5, 2, 3, dropout=-1), ValueError,
     "AttentionLayer: dropout must lie in [0, 1], but got -1"),
    (layers(q=(4, 5)), ValueError, f"{LAYERS} (4, 5), (2, 3, 5) and (2, 3, 5)"),
    (layers(q=(2, 4, 6)), ValueError, f"{LAYERS} (2, 4, 6), (2, 3, 5) and (2, 3, 5)"),
    (layers(k=(3, 3, 5)), ValueError, f"{LAYERS} (2, 4, 5), (3, 3, 5) and (2, 3, 5)"),
    (layers(v=(2, 4, 5)), ValueError, f"{LAYERS} (2, 4, 5), (2, 3, 5) and (2, 4, 5)"),
    (layers(k=(2, 0, 5), v=(2, 0, 5)), ValueError, f"{LAYERS} (2, 4, 5), (2, 0, 5) and (2, 0, 5)"),
    (lambda: nn.AttentionLayer(5, 2, 3)(zeros(2, 4, 5, dtype="int64")), TypeError,
     "AttentionLayer: q and k and v must have one floating dtype, but got int64 and int64 and int64"),
    (lambda: nn.TransformerLayer(0, 2, 3, 4), ValueError, "TransformerLayer: q_features must be at least 1, but got 0"),
    (lambda: nn.TransformerLayer(5, 2, 3, 0), ValueError,
     "TransformerLayer: hidden_size must be at least 1, but got 0"),
    (lambda: nn.TransformerLayer(5, 2, 3, 4, dropout=2), ValueError,
     "AttentionLayer: dropout must lie in [0, 1], but got 2"),
    (lambda: nn.Transformer(0, 4, 1), ValueError, "Transformer: embedding_size must be at least 1, but got 0"),
    (lambda: nn.Transformer(4, 0, 1), ValueError, "TransformerLayer: hidden_size must be at least 1, but got 0"),
    (lambda: nn.Transformer(4, 4, 0), ValueError, "Transformer: num_layers must be at least 1, but got 0"),
    (lambda: nn.Transformer(4, 4, 1, num_head=0), ValueError, "AttentionLayer: num_head must be at least 1, but got 0"),
    (lambda: nn.Transformer(4, 4, 1, sequence_len=0), ValueError,
     "Transformer: sequence_len must be at least 1, but got 0"),
    (lambda: nn.Transformer(4, 4, 1)(zeros(3, 2, 5)), ValueError,
     "Transformer: x must have shape (T, N, 4), but got (3, 2, 5)"),
    (lambda: nn.Transformer(4, 4, 1, batch_first=True)(zeros(3, 4)), ValueError,
     "Transformer: x must have shape (N, T, 4), but got (3, 4)"),
    (lambda: nn.Transformer(4, 4, 1, sequence_len=2)(zeros(3, 2, 4)), ValueError,
     "Transformer: x must have 1 to 2 steps, but got 3"),
    (lambda: nn.Transformer(4, 4, 1)(zeros(0, 2, 4)), ValueError,
     "Transformer: x must have 1 to 2048 steps, but got 0"),
    (lambda: nn.Transformer(4, 4, 1)(zeros(3, 2, 4, dtype="int64")), TypeError,
     "Transformer: x must have a floating dtype, but got int64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
