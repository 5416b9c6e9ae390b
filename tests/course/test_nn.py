"""The layers of the course's contract: names, arguments, order of parameters, draws, and results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import nn

RTOL = 1e-5


def normal(*shape, dtype="float32"):
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def tensor(array, device):
    return ndl.Tensor(array, device=device)


def shapes(layer):
    """The shapes of the parameters, in the order of `parameters()`."""
    return [parameter.shape for parameter in layer.parameters()]


def values(layer):
    return [parameter.numpy() for parameter in layer.parameters()]


def check_draws(make, draw):
    """The parameters of `make()` have the values of `draw()`, made of the same draws and no others."""
    np.random.seed(3)
    expected, following = draw(), np.random.rand()
    np.random.seed(3)
    layer = make()
    assert np.random.rand() == following
    assert shapes(layer) == [array.shape for array in expected]
    for actual, array in zip(values(layer), expected, strict=True):
        assert actual.dtype == "float32"
        assert_allclose(actual, array, rtol=RTOL, atol=1e-7)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in layer.parameters())
    return layer


def uniform(bound, *shape):
    return np.random.rand(*shape) * 2 * bound - bound


def kaiming(fan_in, *shape):
    return uniform(math.sqrt(6 / fan_in), *shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


# ---- modules ---------------------------------------------------------------------------------------------------------


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.rest = {"a": [nn.Linear(3, 4, bias=False), (nn.Dropout(0.5), nn.BatchNorm1d(4))], "b": nn.Linear(4, 5)}
        self.own = nn.Parameter(ndl.ones(6))


def test_parameters_come_in_the_order_of_creation_through_containers():
    layer = Nested()
    assert shapes(layer) == [(2, 3), (1, 3), (3, 4), (4,), (4,), (4, 5), (1, 5), (6,)]


def test_modes_reach_every_module_through_containers():
    layer = Nested()
    below = [layer, layer.first, layer.rest["a"][0], *layer.rest["a"][1], layer.rest["b"]]
    assert all(module.training is True for module in below)
    layer.eval()
    assert all(module.training is False for module in below)
    layer.train()
    assert all(module.training is True for module in below)


def test_calls_pass_every_argument_on():
    class Sum(nn.Module):
        def forward(self, a, b, *, c):
            return a + b + c

    assert Sum()(1, 2, c=3) == 6


def test_a_parameter_is_a_tensor():
    parameter = nn.Parameter(ndl.ones(2))
    assert isinstance(parameter, ndl.Tensor)
    assert parameter.requires_grad


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, device):
    layer = check_draws(
        lambda: nn.Linear(4, 3, bias, device=device),
        lambda: [kaiming(4, 4, 3), *([kaiming(3, 3, 1).reshape(1, 3)] if bias else [])],
    )
    for shape in (2, 4), (2, 5, 4):
        x = normal(*shape)
        expected = x @ layer.weight.numpy() + (layer.bias.numpy() if bias else 0)
        assert_allclose(layer(tensor(x, device)).numpy(), expected, rtol=RTOL, atol=1e-6, strict=True)


def test_linear_takes_a_bias_of_one_axis_and_float64(device):
    layer = nn.Linear(4, 3, device=device)
    layer.bias.data = tensor(normal(3), device)
    x = normal(2, 4, dtype="float64")
    y = layer(tensor(x, device))
    assert y.dtype == "float32"
    assert_allclose(y.numpy(), x @ layer.weight.numpy().astype("float64") + normal(3), rtol=1e-5, atol=1e-6)
    y.sum().backward()
    assert layer.weight.grad.dtype == "float32"
    assert layer.bias.grad.shape == (3,)


def test_flatten(device):
    x = normal(2, 3, 4, 5)
    assert_array_equal(nn.Flatten()(tensor(x, device)).numpy(), x.reshape(2, -1))


@pytest.mark.parametrize(
    ("name", "function"),
    [("ReLU", lambda x: np.maximum(x, 0)), ("Identity", lambda x: x), ("Sigmoid", sigmoid)],
)
def test_elementwise(name, function, device):
    x = normal(3, 4)
    assert_allclose(getattr(nn, name)()(tensor(x, device)).numpy(), function(x), rtol=RTOL)


def test_sequential_and_residual(device):
    first, second = nn.Linear(4, 4, device=device), nn.ReLU()
    chain, x = nn.Sequential(first, second), tensor(normal(2, 4), device)
    assert [chain.modules[0], chain.modules[1]] == [first, second]
    expected = second(first(x)).numpy()
    assert_array_equal(chain(x).numpy(), expected)
    assert_array_equal(nn.Residual(chain)(x).numpy(), expected + x.numpy())


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64"])
def test_softmax_loss(dtype, device):
    x, y = 5 * normal(6, 4, dtype="float64"), np.array([3, 0, 1, 2, 3, 3])
    logits, labels = tensor(x, device), tensor(y.astype(dtype), device)
    loss = nn.SoftmaxLoss()(logits, labels)
    expected = np.mean(np.log(np.exp(x).sum(1)) - x[range(6), y])
    assert_allclose(loss.numpy(), expected, rtol=1e-12)
    assert loss.shape == ()
    loss.backward()
    assert_allclose(logits.grad.numpy(), (softmax(x) - np.eye(4)[y]) / 6, rtol=1e-10, atol=1e-12)
    assert labels.grad is None


@pytest.mark.parametrize(
    ("name", "shape", "axes"), [("BatchNorm1d", (6, 3), 0), ("BatchNorm2d", (4, 3, 2, 5), (0, 2, 3))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm(name, shape, axes, dtype, device):
    layer = check_draws(lambda: getattr(nn, name)(3, 1e-5, 0.1, device), lambda: [np.ones(3), np.zeros(3)])
    assert shapes(layer) == [(3,), (3,)]
    assert not isinstance(layer.running_mean, nn.Parameter)
    assert not isinstance(layer.running_var, nn.Parameter)
    x = 3 * normal(*shape, dtype=dtype) + 5
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    y = layer(tensor(x, device))
    assert_allclose(y.numpy(), (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5)
    mean, variance = 0.1 * mean.reshape(3), 0.9 + 0.1 * variance.reshape(3)
    for buffer, expected in (layer.running_mean, mean), (layer.running_var, variance):
        assert buffer.dtype == "float32"
        assert_allclose(buffer.numpy(), expected, rtol=RTOL)
    spread = [-1 if n == 3 else 1 for n in shape]
    y = layer.eval()(tensor(x, device))
    expected = (x - mean.reshape(spread)) / np.sqrt(variance.reshape(spread) + 1e-5)
    assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert_allclose(layer.running_mean.numpy(), mean, rtol=RTOL)


def test_batch_norm_differentiates_its_statistics(device):
    """Adding a constant to a batch changes nothing: the gradients of each feature sum to zero."""
    x = tensor(normal(6, 3), device)
    (nn.BatchNorm1d(3, device=device)(x) ** 3).sum().backward()
    assert np.abs(x.grad.numpy()).max() > 0.1
    assert_allclose(x.grad.numpy().sum(0), np.zeros(3), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5)])
def test_layer_norm(shape, device):
    layer = check_draws(lambda: nn.LayerNorm1d(5, 1e-5, device), lambda: [np.ones(5), np.zeros(5)])
    x = 3 * normal(*shape) + 2
    assert_allclose(layer(tensor(x, device)).numpy(), normed(x), rtol=1e-4, atol=1e-5)
    layer.weight, layer.bias = tensor(normal(5), device), tensor(normal(5) + 1, device)
    y = layer(tensor(x, device))
    assert y.dtype == "float32"
    assert_allclose(y.numpy(), normed(x) * normal(5) + normal(5) + 1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "layer_dtype"), [("float64", "float32"), ("float32", "float64"), ("float16", "float32")]
)
def test_layer_norm_of_another_dtype(dtype, layer_dtype, device):
    layer = nn.LayerNorm1d(5, device=device, dtype=layer_dtype)
    x = tensor(normal(2, 5).astype(dtype), device)
    y = layer(x)
    assert y.dtype == layer_dtype
    assert_allclose(y.numpy(), normed(x.numpy().astype("float64")), rtol=1e-4, atol=1e-5)
    (y * y * y).sum().backward()
    assert (x.grad.dtype, layer.weight.grad.dtype) == (dtype, layer_dtype)


@pytest.mark.parametrize("p", [0, 0.1, 0.5])
def test_dropout(p, device):
    x = normal(4, 5)
    np.random.seed(8)
    keep, following = np.random.rand(4, 5) <= 1 - p, np.random.rand()
    np.random.seed(8)
    layer = nn.Dropout(p)
    y = layer(tensor(x, device))
    assert np.random.rand() == following
    assert_allclose(y.numpy(), keep * x / (1 - p), rtol=RTOL)
    state = np.random.get_state()
    assert_array_equal(layer.eval()(tensor(x, device)).numpy(), x)
    np.testing.assert_equal(np.random.get_state(), state)


def test_dropout_defaults_to_a_half():
    assert nn.Dropout().p == 0.5


def test_layers_without_parameters_draw_nothing_when_they_are_made():
    state = np.random.get_state()
    nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.LayerNorm1d(2), nn.ReLU(), nn.Sigmoid(), nn.Flatten(),
                  nn.Identity(), nn.Dropout(), nn.Residual(nn.ReLU()), nn.SoftmaxLoss())  # fmt: skip
    nn.MultiHeadAttention(dropout=0.5)
    np.testing.assert_equal(np.random.get_state(), state)


# ---- convolution -----------------------------------------------------------------------------------------------------


def convolved(x, weight, stride):
    """NCHW images and a weight (k, k, in, out), padded by k // 2."""
    k = len(weight)
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("ncpqij,ijco->nopq", windows, weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (1, 1), (2, 1), (4, 3)])
def test_conv(kernel_size, stride, bias, device):
    k = kernel_size
    layer = check_draws(
        lambda: nn.Conv(3, 4, k, stride, bias, device),
        lambda: [kaiming(3 * k * k, k, k, 3, 4), *([uniform(1 / math.sqrt(3 * k * k), 4)] if bias else [])],
    )
    x = normal(2, 3, 7, 6)
    y = layer(tensor(x, device))
    expected = convolved(x, layer.weight.numpy(), stride)
    if bias:
        expected = expected + layer.bias.numpy().reshape(1, 4, 1, 1)
    else:
        assert layer.bias is None
    assert y.dtype == "float32"
    assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_conv_takes_the_first_entry_of_tuples(device):
    layer = nn.Conv(3, 4, (5, 1), (2, 7), device=device)
    assert layer.weight.shape == (5, 5, 3, 4)
    assert layer(ndl.ones(1, 3, 8, 8, device=device)).shape == (1, 4, 4, 4)


def test_conv_casts_float64_to_the_dtype_of_its_weight(device):
    layer, x = nn.Conv(3, 4, 3, device=device), tensor(normal(2, 3, 5, 5, dtype="float64"), device)
    y = layer(x)
    assert y.dtype == "float32"
    assert_array_equal(y.numpy(), layer(x.detach().astype("float32")).numpy())
    y.sum().backward()
    assert (x.grad.dtype, layer.weight.grad.dtype) == ("float64", "float32")


def test_conv_is_a_thin_wrapper_of_conv2d(device):
    """One node computes both; the others rearrange the weight."""
    y = nn.Conv(3, 4, 3, bias=False, device=device)(ndl.ones(1, 3, 5, 5, device=device))
    assert [type(node.op).__name__ for node in ndl.autograd.find_topo_sort([y]) if node.op] == ["Permute", "Correlate"]


# ---- recurrent layers ------------------------------------------------------------------------------------------------


def cell_draws(inputs, hidden, columns, bias=True):
    bound = 1 / math.sqrt(hidden)
    weights = [uniform(bound, inputs, columns), uniform(bound, hidden, columns)]
    return [*weights, *([uniform(bound, columns), uniform(bound, columns)] if bias else [])]


def gates(parameters, x, h):
    """x W_ih + b_ih + h W_hh + b_hh."""
    w_ih, w_hh, *biases = parameters
    return x @ w_ih + h @ w_hh + sum(biases)


def lstm_step(parameters, x, h, c):
    i, f, g, o = np.split(gates(parameters, x, h), 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("nonlinearity", "function"), [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))])
def test_rnn_cell(nonlinearity, function, bias, device):
    layer = check_draws(lambda: nn.RNNCell(3, 4, bias, nonlinearity, device), lambda: cell_draws(3, 4, 4, bias))
    x, h = normal(2, 3), normal(2, 4)
    expected = function(gates(values(layer), x, h))
    assert_allclose(layer(tensor(x, device), tensor(h, device)).numpy(), expected, rtol=1e-4, atol=1e-6)
    expected = function(gates(values(layer), x, 0 * h))
    assert_allclose(layer(tensor(x, device)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_parameters_may_be_replaced_by_plain_tensors(device):
    for layer, columns in (nn.RNNCell(3, 4, device=device), 4), (nn.LSTMCell(3, 4, device=device), 16):
        new = {"W_ih": (3, columns), "W_hh": (4, columns), "bias_ih": (columns,), "bias_hh": (columns,)}
        x, h, c = normal(2, 3), normal(2, 4), normal(2, 4) + 1
        for name in new:
            setattr(layer, name, tensor(normal(*new[name]), device))
        parameters = [normal(*shape) for shape in new.values()]
        if columns == 4:
            actual, expected = [layer(tensor(x, device), tensor(h, device))], [np.tanh(gates(parameters, x, h))]
        else:
            actual = layer(tensor(x, device), (tensor(h, device), tensor(c, device)))
            expected = lstm_step(parameters, x, h, c)
        for y, array in zip(actual, expected, strict=True):
            assert_allclose(y.numpy(), array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stateful", [True, False])
def test_rnn(stateful, bias, device):
    layer = check_draws(
        lambda: nn.RNN(3, 4, 2, bias, "tanh", device),
        lambda: [*cell_draws(3, 4, 4, bias), *cell_draws(4, 4, 4, bias)],
    )
    assert isinstance(layer.rnn_cells, list)
    x, h0 = normal(5, 2, 3), normal(2, 2, 4) * stateful
    y, h_n = layer(tensor(x, device), tensor(h0, device)) if stateful else layer(tensor(x, device), None)
    steps, last = x, []
    for cell, h in zip(layer.rnn_cells, h0, strict=True):
        outputs = []
        for step in steps:
            h = np.tanh(gates(values(cell), step, h))
            outputs.append(h)
        steps = outputs
        last.append(h)
    assert_allclose(y.numpy(), steps, rtol=1e-4, atol=1e-5)
    assert_allclose(h_n.numpy(), last, rtol=1e-4, atol=1e-5)


def test_rnn_with_relu(device):
    layer = nn.RNN(3, 4, 2, nonlinearity="relu", device=device)
    y, _ = layer(tensor(normal(5, 2, 3), device))
    assert (y.numpy() >= 0).all()
    assert (y.numpy() == 0).any()


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_cell(bias, device):
    layer = check_draws(lambda: nn.LSTMCell(3, 4, bias, device), lambda: cell_draws(3, 4, 16, bias))
    x, h, c = normal(2, 3), normal(2, 4), normal(2, 4) + 1
    for actual, expected in (
        (layer(tensor(x, device), (tensor(h, device), tensor(c, device))), lstm_step(values(layer), x, h, c)),
        (layer(tensor(x, device)), lstm_step(values(layer), x, 0 * h, 0 * c)),
    ):
        assert isinstance(actual, tuple)
        for y, array in zip(actual, expected, strict=True):
            assert_allclose(y.numpy(), array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stateful", [True, False])
def test_lstm(stateful, bias, device):
    layer = check_draws(
        lambda: nn.LSTM(3, 4, 2, bias, device), lambda: [*cell_draws(3, 4, 16, bias), *cell_draws(4, 4, 16, bias)]
    )
    assert isinstance(layer.lstm_cells, list)
    x, h0, c0 = normal(5, 2, 3), normal(2, 2, 4) * stateful, (normal(2, 2, 4) + 1) * stateful
    y, state = layer(tensor(x, device), (tensor(h0, device), tensor(c0, device)) if stateful else None)
    assert isinstance(state, tuple)
    steps, last = x, []
    for cell, h, c in zip(layer.lstm_cells, h0, c0, strict=True):
        outputs = []
        for step in steps:
            h, c = lstm_step(values(cell), step, h, c)
            outputs.append(h)
        steps = outputs
        last.append((h, c))
    assert_allclose(y.numpy(), steps, rtol=1e-4, atol=1e-5)
    for actual, expected in zip(state, zip(*last, strict=True), strict=True):
        assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_embedding(device):
    layer = check_draws(lambda: nn.Embedding(6, 3, device=device), lambda: [np.random.randn(6, 3)])
    x = np.array([[0, 5], [2, 2], [1, 0]])
    y = layer(tensor(x.astype("float32"), device))
    assert_array_equal(y.numpy(), layer.weight.numpy()[x])
    y.sum().backward()
    assert layer.weight.grad.numpy()[:, 0].tolist() == [2, 1, 2, 0, 0, 1]


# ---- attention -------------------------------------------------------------------------------------------------------


def attend(q, k, v, causal):
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    queries, keys = scores.shape[-2:]
    mask = np.triu(np.full((queries, keys), -np.finfo("float32").max, "float32"), keys - queries + 1)
    return softmax(scores + mask * causal) @ v


def split_heads(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attention_layer(projections, q, k, v, heads, causal):
    """The norms begin as ones and zeros: only the projections are needed."""
    *into, out = projections
    parts = [split_heads(normed(x) @ w, heads) for x, w in zip((q, k, v), into, strict=True)]
    result = attend(*parts, causal).transpose(0, 2, 1, 3)
    return result.reshape(*result.shape[:2], -1) @ out


def transformer_layer(parameters, x, heads, causal):
    """`parameters` omits the norms."""
    *projections, w1, b1, w2, b2 = parameters
    x = x + attention_layer(projections, x, x, x, heads, causal)
    return x + np.maximum(normed(x) @ w1 + b1, 0) @ w2 + b2


def attention_draws(features, inner, norms=True):
    ones_and_zeros = [f(features) for _ in range(3) for f in (np.ones, np.zeros)] if norms else []
    return [*ones_and_zeros, *(kaiming(features, features, inner) for _ in range(3)), kaiming(inner, inner, features)]


def layer_draws(features, inner, hidden):
    first = attention_draws(features, inner)
    linear = [kaiming(features, features, hidden), kaiming(hidden, hidden, 1).T]
    linear += [kaiming(hidden, hidden, features), kaiming(features, features, 1).T]
    return [*first, np.ones(features), np.zeros(features), *linear]


def without_norms(arrays):
    """The result of `layer_draws` without the parameters of the four norms."""
    return [*arrays[6:10], *arrays[12:]]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("keys", [4, 6])
def test_multi_head_attention(keys, causal, device):
    layer = nn.MultiHeadAttention(dropout=0.3, causal=causal, device=device, dtype="float32")
    assert layer.parameters() == []
    q, k, v = normal(2, 3, 4, 5), normal(2, 3, keys, 5), normal(2, 3, keys, 5) + 1
    np.random.seed(2)
    keep, following = np.random.rand(2, 3, 4, keys) <= 0.7, np.random.rand()
    np.random.seed(2)
    result, probs = layer(*(tensor(x, device) for x in (q, k, v)))
    assert np.random.rand() == following
    eye = np.broadcast_to(np.eye(keys), (2, 3, keys, keys))
    weights = attend(q, k, eye, causal) * keep / 0.7
    assert_allclose(probs.numpy(), weights, rtol=1e-4, atol=1e-6)
    assert_allclose(result.numpy(), weights @ v, rtol=1e-4, atol=1e-5)
    result, _ = layer.eval()(*(tensor(x, device) for x in (q, k, v)))
    assert_allclose(result.numpy(), attend(q, k, v, causal), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_layer(causal, device):
    layer = check_draws(
        lambda: nn.AttentionLayer(5, 2, 3, causal=causal, device=device), lambda: attention_draws(5, 6)
    )  # fmt: skip
    projections = [layer.q_projection, layer.k_projection, layer.v_projection, layer.out_projection]
    assert [p.weight for p in projections] == layer.parameters()[6:]
    norms = [layer.prenorm_q, layer.prenorm_k, layer.prenorm_v]
    assert [p for norm in norms for p in (norm.weight, norm.bias)] == layer.parameters()[:6]
    q, k, v = normal(2, 4, 5), normal(2, 6, 5), normal(2, 6, 5) + 1
    weights = values(layer)[6:]
    for inputs in ([q], [q, k, v], [q, q + k[:, :4]]):
        full = [*inputs, *[q] * (3 - len(inputs))]
        y = layer(*(tensor(x, device) for x in inputs))
        assert_allclose(y.numpy(), attention_layer(weights, *full, 2, causal), rtol=1e-3, atol=1e-5)


def test_attention_layer_of_other_features(device):
    layer = nn.AttentionLayer(5, 2, 3, k_features=4, v_features=6, out_features=7, device=device)
    assert shapes(layer)[6:] == [(5, 6), (4, 6), (6, 6), (6, 7)]
    assert layer(*(tensor(normal(2, 4, n), device) for n in (5, 4, 6))).shape == (2, 4, 7)


@pytest.mark.parametrize("causal", [True, False])
def test_transformer_layer(causal, device):
    layer = check_draws(
        lambda: nn.TransformerLayer(5, 2, 3, 7, causal=causal, device=device), lambda: layer_draws(5, 6, 7)
    )  # fmt: skip
    x = normal(2, 4, 5)
    expected = transformer_layer(without_norms(values(layer)), x, 2, causal)
    assert_allclose(layer(tensor(x, device)).numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_transformer_layer_draws_in_training_as_its_dropouts_run(dropout, device):
    layer = nn.TransformerLayer(5, 2, 3, 7, dropout=dropout, device=device)
    np.random.seed(2)
    for shape in (2, 2, 4, 4), (2, 4, 5), (2, 4, 7), (2, 4, 5):
        np.random.rand(*shape)
    following = np.random.rand()
    np.random.seed(2)
    layer(tensor(normal(2, 4, 5), device))
    assert np.random.rand() == following


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_transformer(causal, batch_first, device):
    options = {"num_head": 2, "dim_head": 3, "causal": causal, "batch_first": batch_first, "sequence_len": 8}
    layer = check_draws(
        lambda: nn.Transformer(5, 7, 2, **options, device=device),
        lambda: [np.random.randn(8, 5), *layer_draws(5, 6, 7), *layer_draws(5, 6, 7)],
    )
    positions, *parameters = values(layer)
    x = normal(2, 4, 5)
    expected = x + positions[:4]
    for i in range(2):
        expected = transformer_layer(without_norms(parameters[16 * i : 16 * i + 16]), expected, 2, causal)
    turn = (lambda a: a) if batch_first else (lambda a: a.swapaxes(0, 1))
    y, h = layer(tensor(turn(x), device))
    assert_allclose(y.numpy(), turn(expected), rtol=1e-3, atol=1e-5)
    assert_array_equal(h.numpy(), np.zeros_like(turn(x)))
    assert_array_equal(layer(tensor(turn(x), device), h)[0].numpy(), y.numpy())


# ---- counts ----------------------------------------------------------------------------------------------------------


def residual_block(dim, hidden, norm):
    inner = nn.Sequential(
        nn.Linear(dim, hidden), norm(hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, dim), norm(dim)
    )
    return nn.Sequential(nn.Residual(inner), nn.ReLU())


@pytest.mark.parametrize(
    ("dim", "hidden", "norm", "count"), [(15, 2, nn.BatchNorm1d, 111), (784, 100, nn.LayerNorm1d, 159452)]
)
def test_parameter_counts_of_the_residual_block(dim, hidden, norm, count, device):
    block = residual_block(dim, hidden, norm)
    assert sum(math.prod(shape) for shape in shapes(block)) == count


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm1d])
def test_a_float32_model_takes_float64(norm, on_device):
    block = residual_block(6, 3, norm)
    y = block(ndl.Tensor(normal(4, 6, dtype="float64")))
    assert y.dtype == "float64"
    y.sum().backward()
    assert {str(parameter.grad.dtype) for parameter in block.parameters()} == {"float32"}
