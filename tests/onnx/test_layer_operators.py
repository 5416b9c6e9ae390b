"""Activations, softmaxes, losses, dropout and attention of ONNX: what the official cases leave out."""

import re

import numpy as np
import onnx
import pytest
from scipy import special

import needle as ndl
from needle.nn import functional as F
from needle.onnx import load
from tests.onnx.one_node import in_onnxruntime, operate

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4))

# ---- activations -----------------------------------------------------------------------------------------------------


def test_prelu_until_version_6_has_a_slope_for_each_channel():
    slope = np.array([0.5, 0.25, 2])
    np.testing.assert_allclose(
        operate("PRelu", X, slope, opset=6).numpy(), np.where(X < 0, slope[:, None] * X, X), rtol=1e-12
    )
    np.testing.assert_allclose(operate("PRelu", X, [0.5], opset=6).numpy(), np.where(X < 0, 0.5 * X, X), rtol=1e-12)


def test_integers():
    x = np.int64([-(2**60) - 3, -1, 0, 2**60 + 3])
    assert operate("PRelu", x, np.int64([2])).numpy().tolist() == [-(2**61) - 6, -2, 0, 2**60 + 3]
    assert operate("Relu", x).numpy().tolist() == [0, 0, 0, 2**60 + 3]
    assert operate("Shrink", x, bias=1.0, lambd=1.5).numpy().tolist() == [-(2**60) - 2, 0, 0, 2**60 + 2]
    assert operate("Shrink", np.int8([-4, 1, 4]), bias=1.5).numpy().tolist() == [-2, 0, 2]
    assert operate("Shrink", np.uint8([0, 1, 200]), bias=1.0).numpy().tolist() == [0, 0, 199]


def test_softplus_is_exact_where_torch_is_linear():
    x = np.array([-40.0, 0, 20.5, 800])
    np.testing.assert_allclose(operate("Softplus", x).numpy(), np.logaddexp(0, x), rtol=1e-15)


# ---- softmaxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_until_version_12_the_axes_from_axis_on_count_together(axis):
    flat = X.reshape((*X.shape[: axis % 3], -1))
    expected = {
        "Softmax": special.softmax(flat, -1),
        "LogSoftmax": special.log_softmax(flat, -1),
        "Hardmax": flat == flat.max(-1, keepdims=True),
    }
    for op_type, y in expected.items():
        np.testing.assert_allclose(operate(op_type, X, opset=12, axis=axis).numpy(), y.reshape(X.shape), rtol=1e-12)


def test_defaults_of_the_axis():
    x = np.array([[1.0, 1], [0, 3]])
    assert operate("Hardmax", x.reshape(2, 1, 2)).numpy().tolist() == [[[1, 0]], [[0, 1]]]
    assert operate("Hardmax", x.reshape(1, 2, 2), opset=11).numpy().tolist() == [[[0, 0], [0, 1]]]


def test_no_elements():
    for opset in 11, 13:
        assert operate("Softmax", np.zeros((0, 3)), opset=opset).shape == (0, 3)


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_no_class_is_ignored_unless_the_model_names_one():
    with pytest.raises(ValueError, match=r"nll_loss: targets must lie in \[0, 2\], but got -100"):
        operate("NegativeLogLikelihoodLoss", X, np.full((2, 4), -100))
    loss = operate("SoftmaxCrossEntropyLoss", X, np.full((2, 4), -100), ignore_index=-100, reduction="sum")
    assert loss.item() == 0


def test_loss_and_log_probabilities_have_derivatives():
    labels = ndl.Tensor(rng.integers(0, 3, (2, 4)), requires_grad=False)
    weights = ndl.Tensor(rng.random(3), requires_grad=False)
    assert ndl.gradcheck(
        lambda x: operate("SoftmaxCrossEntropyLoss", x, labels, weights, outputs=2, ignore_index=1), ndl.Tensor(X)
    )


# ---- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_by_version():
    x = np.ones((50, 20), "float32")
    for opset, attributes, mask_dtype in [(1, {"is_test": 1}, "float32"), (7, {}, "float32"), (10, {}, "bool")]:
        y, mask = operate("Dropout", x, opset=opset, outputs=2, ratio=0.25, **attributes)
        assert mask.dtype == mask_dtype
        assert y.numpy().all()
        assert mask.numpy().all()
    np.random.seed(0)
    y, mask = operate("Dropout", x, opset=6, outputs=2, ratio=0.25)
    assert 0.2 < 1 - mask.numpy().mean() < 0.3
    np.testing.assert_allclose(y.numpy(), mask.numpy() / 0.75, rtol=1e-6)
    y, mask = operate("Dropout", x, np.float32(0.25), np.array(True), opset=13, outputs=2)
    assert mask.dtype == "bool"
    assert 0.2 < 1 - mask.numpy().mean() < 0.3
    y, _ = operate("Dropout", x, np.float32(1), np.array(True), opset=13, outputs=2, seed=1)
    assert not y.numpy().any()


def test_dropout_follows_the_mode_of_the_module_and_its_seed_goes_on():
    text = '<ir_version: 8, opset_import: ["": 13]> g (float[100] x) => (float[100] y) { y = Dropout <seed = 3> (x) }'
    model, x = load(onnx.parser.parse_model(text)), ndl.ones(100)
    assert model(x).numpy().all()
    model.train()
    first, second = model(x).numpy(), model(x).numpy()
    assert 0.3 < (first == 0).mean() < 0.7
    assert (first != second).any()
    again = load(onnx.parser.parse_model(text)).train()
    assert (again(x).numpy() == first).all()
    assert (again(x).numpy() == second).all()


# ---- attention -------------------------------------------------------------------------------------------------------


def heads(*sizes):
    return ndl.Tensor(rng.standard_normal((2, *sizes)))


def test_attention_is_that_of_needle():
    q, k, v = heads(2, 3, 4), heads(2, 5, 4), heads(2, 5, 6)
    mask = rng.random((2, 1, 3, 5)) < 0.6
    y, *_ = operate("Attention", q, k, v, mask)
    np.testing.assert_allclose(y.numpy(), F.scaled_dot_product_attention(q, k, v, mask).numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "attributes",
    [
        {"is_causal": 1, "softcap": 2.0},
        {"left_window_size": 1, "right_window_size": 0, "qk_matmul_output_mode": 3},
        {"scale": 0.3, "qk_matmul_output_mode": 1, "softcap": 1.5},
    ],
)
def test_attention_has_derivatives(attributes):
    q, k, v, past_k, past_v = heads(4, 2, 3), heads(2, 3, 3), heads(2, 3, 2), heads(2, 1, 3), heads(2, 1, 2)
    bias = ndl.Tensor(rng.standard_normal((2, 4)))

    def f(*inputs):
        outputs = operate("Attention", *inputs, opset=25, outputs=4, **attributes)
        return outputs[0], outputs[3]

    assert ndl.gradcheck(f, q, k, v, bias, past_k, past_v)


def test_attention_of_fully_masked_queries_has_a_derivative_of_zero():
    q, k, v = (ndl.Tensor(rng.standard_normal((1, 1, 2, 2))) for _ in range(3))
    y, *_ = operate("Attention", q, k, v, np.array([[False, False], [True, False]]))
    y.sum().backward()
    assert not y.numpy()[0, 0, 0].any()
    assert not q.grad.numpy().any()
    assert v.grad.numpy().tolist() == [[[[1, 1], [0, 0]]]]


@pytest.mark.parametrize("seed", range(20))
def test_attention_agrees_with_onnxruntime(seed):
    rng = np.random.default_rng(seed)
    groups, keys_heads, queries, keys, past = rng.integers(1, 4, 5)
    size, value_size = 4, 2
    if rng.random() < 0.5:
        value_size = size
    q, k, v, past_k, past_v = (
        rng.standard_normal((2, *sizes)).astype("float32")
        for sizes in [
            (groups * keys_heads, queries, size), (keys_heads, keys, size), (keys_heads, keys, value_size),
            (keys_heads, past, size), (keys_heads, past, value_size),
        ]
    )  # fmt: skip
    has_past, attributes = rng.random() < 0.5, {}
    total = keys + past * has_past
    masks = [None, rng.random((queries, total)) < 0.7, rng.standard_normal((2, 1, queries, total)).astype("float32")]
    mask = masks[rng.integers(3)]
    if mask is not None and mask.dtype == bool:
        mask[:, 0] = True
    if rng.random() < 0.3:
        attributes["softcap"] = 1.5
    if rng.random() < 0.3:
        attributes["scale"] = 0.25
    if rng.random() < 0.4 and (queries > 1 or not has_past):  # there, onnxruntime lets one query attend to all keys
        attributes["is_causal"] = 1
    inputs = [q, k, v, mask, *((past_k, past_v) if has_past else ())]
    expected = in_onnxruntime("Attention", *inputs, opset=23, outputs=3, **attributes)
    for result, y in zip(operate("Attention", *inputs, opset=23, outputs=3, **attributes), expected, strict=False):
        np.testing.assert_allclose(result.numpy(), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention_has_derivatives(rule):
    q, k, v, past = heads(2, 8), heads(2, 4), heads(2, 6), heads(2, 2, 3)
    decay = heads(2, 4) if "gated" in rule else None
    beta = heads(2, 2) if "delta" in rule else None
    given = [x for x in (decay, beta) if x is not None]

    def f(q, k, v, past, *others):
        others = list(others)
        inputs = [None if x is None else others.pop(0) for x in (decay, beta)]
        return operate(
            "LinearAttention", q, k, v, past, *inputs, opset=27, update_rule=rule, q_num_heads=4, kv_num_heads=2
        )

    assert ndl.gradcheck(f, q, k, v, past, *given, order=1)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_has_derivatives_and_keeps_lengths(interleaved):
    angles = rng.random((5, 2))
    positions = ndl.Tensor([[0, 3, 4], [1, 1, 2]], requires_grad=False)
    x, cos, sin = heads(3, 3, 6), ndl.Tensor(np.cos(angles)), ndl.Tensor(np.sin(angles))

    def f(x):
        return operate("RotaryEmbedding", x, cos, sin, positions, rotary_embedding_dim=4, interleaved=interleaved)

    assert ndl.gradcheck(f, x, order=1)
    np.testing.assert_allclose(np.linalg.norm(f(x).numpy(), axis=-1), np.linalg.norm(x.numpy(), axis=-1))


# ---- errors ----------------------------------------------------------------------------------------------------------

PACKED = np.ones((1, 2, 4), "float32")

# fmt: off
ERRORS = [
    (lambda: operate("Attention", PACKED, PACKED, PACKED), ValueError,
     r"Attention \(.*\): q_num_heads must be given with inputs of 3 axes, but got None"),
    (lambda: operate("Attention", *[PACKED[None]] * 3, softmax_precision=16), TypeError,
     r"Attention \(.*\): softmax_precision must be one of \[1, 10, 11\], but got 16"),
    (lambda: operate("LinearAttention", PACKED, PACKED, PACKED, opset=27, q_num_heads=2, kv_num_heads=2), ValueError,
     r"LinearAttention \(.*\): decay and beta must be there as update_rule 'gated_delta' needs, but got \(False, .*"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
