"""Cells and recurrent layers: against torch to second order, their draws, states, dtypes and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import nn, ops
from tests.nn.compare import assert_draws, assert_floats_are, uniform
from tests.nn.functional.alike import check_module, normal, raises
from tests.ops.derivatives import assert_like_torch

IN, HIDDEN = 3, 4
PARAMETERS = ("W_ih", "W_hh", "bias_ih", "bias_hh")
TORCH_NAMES = {"W_ih": "weight_ih", "W_hh": "weight_hh", "bias_ih": "bias_ih", "bias_hh": "bias_hh"}

# name -> the arguments of needle's layer and of torch's
LAYERS = {
    "RNNCell": ((IN, HIDDEN), (IN, HIDDEN)),
    "RNNCell, relu": ((IN, HIDDEN, True, "relu"), (IN, HIDDEN, True, "relu")),
    "RNNCell, no bias": ((IN, HIDDEN, False), (IN, HIDDEN, False)),
    "LSTMCell": ((IN, HIDDEN), (IN, HIDDEN)),
    "LSTMCell, no bias": ((IN, HIDDEN, False), (IN, HIDDEN, False)),
    "RNN": ((IN, HIDDEN), (IN, HIDDEN)),
    "RNN, relu": ((IN, HIDDEN, 2, True, "relu"), (IN, HIDDEN, 2, "relu")),
    "RNN, no bias": ((IN, HIDDEN, 2, False), (IN, HIDDEN, 2, "tanh", False)),
    "LSTM": ((IN, HIDDEN), (IN, HIDDEN)),
    "LSTM, 3 layers": ((IN, HIDDEN, 3), (IN, HIDDEN, 3)),
    "LSTM, no bias": ((IN, HIDDEN, 2, False), (IN, HIDDEN, 2, False)),
    "GRUCell": ((IN, HIDDEN), (IN, HIDDEN)),
    "GRUCell, no bias": ((IN, HIDDEN, False), (IN, HIDDEN, False)),
    "GRU": ((IN, HIDDEN), (IN, HIDDEN)),
    "GRU, 2 layers, no bias": ((IN, HIDDEN, 2, False), (IN, HIDDEN, 2, False)),
    "RNN, bidirectional": ((IN, HIDDEN, 1), (IN, HIDDEN, 1)),
    "LSTM, bidirectional": ((IN, HIDDEN, 2), (IN, HIDDEN, 2)),
    "GRU, bidirectional": ((IN, HIDDEN, 2), (IN, HIDDEN, 2)),
}


def parameters_of(layer):
    """Triples (module, attribute, name in torch) of a layer's parameters."""
    if type(layer).__name__.startswith("GRU"):
        return [(layer, name, name) for name, _ in layer.named_parameters()]
    if type(layer).__name__.endswith("Cell"):
        named = [(layer, "")]
    else:
        cells = "rnn_cells" if isinstance(layer, nn.RNN) else "lstm_cells"
        named = [(cell, f"_l{i}") for i, cell in enumerate(getattr(layer, cells))]
        named += [(cell, f"_l{i}_reverse") for i, cell in enumerate(getattr(layer, f"{cells}_reverse", []))]
    return [
        (cell, name, TORCH_NAMES[name] + suffix)
        for cell, suffix in named
        for name in PARAMETERS
        if getattr(cell, name) is not None
    ]


def in_torchs_layout(name, value):
    """A parameter of ours as torch keeps it; it is its own inverse."""
    return value.T if name.startswith("W_") else value


def flat(result):
    """The tensors of a nested result, needle's or torch's, as one vector."""
    if isinstance(result, tuple):
        parts = [flat(part) for part in result]
        return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else ops.concatenate(parts)
    return result.reshape((-1,))


def twins(name, device, stateful):
    """A layer and torch's as functions of (x, states, parameters), and arrays for them.

    The parameters of needle's layer are replaced by the passed tensors; torch's have other names and are transposed.
    """
    kind = name.split(",")[0]
    arguments, torch_arguments = LAYERS[name]
    options = {"bidirectional": True} if "bidirectional" in name else {}
    layer = getattr(nn, kind)(*arguments, **options, device=device, dtype="float64")
    twin = getattr(torch.nn, kind)(*torch_arguments, **options, dtype=torch.float64)
    cell = kind.endswith("Cell")
    slots = parameters_of(layer)
    assert {name for *_, name in slots} == {name for name, _ in twin.named_parameters()}
    lead = () if cell else (layer.num_layers * (1 + layer.bidirectional),)
    states = [normal(*lead, 2, HIDDEN, seed=9 + i) for i in range(1 + kind.startswith("LSTM"))] if stateful else []
    x = normal(2, IN) if cell else normal(5, 2, IN)

    def call(layer, x, states):
        return layer(x) if not states else layer(x, tuple(states) if kind.startswith("LSTM") else states[0])

    def function(x, *tensors):
        for (one, parameter, _), value in zip(slots, tensors[len(states) :], strict=True):
            setattr(one, parameter, value)
        return flat(call(layer, x, tensors[: len(states)]))

    def torch_function(x, *tensors):
        values = {name: in_torchs_layout(mine, value)
                  for (_, mine, name), value in zip(slots, tensors[len(states) :], strict=True)}  # fmt: skip
        arguments = (x, *[tuple(tensors[:2]) if len(states) == 2 else t for t in tensors[: min(len(states), 1)]])
        return flat(torch.func.functional_call(twin, values, arguments))

    parameters = [normal(*getattr(one, name).shape, seed=i, scale=0.6) for i, (one, name, _) in enumerate(slots)]
    return function, torch_function, [x, *states, *parameters]


@pytest.mark.parametrize("stateful", [True, False], ids=["with states", "without"])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_all_derivatives_equal_torch(name, stateful, device):
    function, torch_function, arrays = twins(name, device, stateful)
    assert_like_torch(function, torch_function, arrays, device, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["RNN, relu", "LSTM, 3 layers"])
def test_float32_stays_float32_and_close_to_torch(name, device):
    function, torch_function, arrays = twins(name, device, stateful=True)
    arrays = [array.astype("float32") for array in arrays]
    leaves = [ndl.Tensor(array, device=device) for array in arrays]
    y = function(*leaves)
    assert_floats_are("float32", [y])
    assert_allclose(y.numpy(), torch_function(*map(torch.from_numpy, arrays)).numpy(), rtol=1e-5, atol=1e-6)
    y.sum().backward()
    assert_floats_are("float32", [leaf.grad for leaf in leaves])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "bool"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_other_dtypes_than_the_parameters_are_refused(name, dtype):
    """In x, in a state, and in a parameter that was replaced."""
    layer = getattr(nn, name)(IN, HIDDEN)
    shape = (1, 2, HIDDEN) if hasattr(layer, "num_layers") else (2, HIDDEN)
    x, h = ndl.zeros(*(5, 2, IN)[-len(shape) :]), ndl.zeros(*shape)
    state = (h, h.astype(dtype)) if name.startswith("LSTM") else h.astype(dtype)
    with pytest.raises(TypeError, match=rf"^{name}: x (and \w+_ih )?must have (a|one) floating dtype, but got {dtype}"):
        layer(x.astype(dtype))
    with pytest.raises(TypeError, match=rf"^{name}: (x and )?[hc]0? must have (a|one) floating dtype, but .*{dtype}"):
        layer(x, state)
    module, attribute, _ = parameters_of(layer)[-1]
    setattr(module, attribute, getattr(module, attribute).detach().astype(dtype))
    with pytest.raises(TypeError, match=rf"^{name}: x and bias_hh must have one floating dtype, but got float32 and"):
        layer(x)


def with_torchs_parameters(layer, twin):
    values = dict(twin.named_parameters())
    for module, attribute, name in parameters_of(layer):
        value = np.ascontiguousarray(in_torchs_layout(attribute, values[name].detach().numpy()))
        getattr(module, attribute).data = ndl.Tensor(value, device=layer.parameters()[0].device)
    return layer


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, IN), (5, IN), (0, 5, IN)], ids=str)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_batch_first_and_unbatched_inputs(kind, shape, bidirectional, stateful, device):
    options = {"num_layers": 2, "batch_first": True, "bidirectional": bidirectional}
    twin = getattr(torch.nn, kind)(IN, HIDDEN, **options, dtype=torch.float64)
    layer = with_torchs_parameters(getattr(nn, kind)(IN, HIDDEN, **options, device=device, dtype="float64"), twin)
    x, lead = normal(*shape), 2 + 2 * bidirectional
    states = [normal(lead, *shape[:-2], HIDDEN, seed=i) for i in range(1 + (kind == "LSTM"))]
    leaves = [ndl.Tensor(array, device=device) for array in (x, *states)]
    theirs = [torch.from_numpy(array).requires_grad_() for array in (x, *states)]

    def call(layer, x, *states):
        return layer(x, *([states if kind == "LSTM" else states[0]] if stateful else []))

    actual, expected = call(layer, *leaves), call(twin, *theirs)
    assert actual[0].shape == expected[0].shape
    flat(actual).sum().backward()
    flat(expected).sum().backward()
    assert_allclose(flat(actual).numpy(), flat(expected).detach().numpy(), rtol=1e-10, atol=1e-12)
    for mine, other in zip(leaves[: 1 + stateful * len(states)], theirs, strict=False):
        assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-10, atol=1e-12)
    for module, attribute, name in parameters_of(layer):
        grad = in_torchs_layout(attribute, getattr(module, attribute).grad.numpy())
        assert_allclose(grad, dict(twin.named_parameters())[name].grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_take_an_input_without_a_batch(kind, stateful, device):
    twin = getattr(torch.nn, kind)(IN, HIDDEN, dtype=torch.float64)
    layer = with_torchs_parameters(getattr(nn, kind)(IN, HIDDEN, device=device, dtype="float64"), twin)
    arrays = [normal(IN), normal(HIDDEN), normal(HIDDEN, seed=1)]
    results = []
    for module, (x, *states) in (
        (layer, [ndl.Tensor(array, device=device) for array in arrays]), (twin, [*map(torch.from_numpy, arrays)])
    ):  # fmt: skip
        state = [tuple(states) if kind == "LSTMCell" else states[0]] if stateful else []
        result = module(x, *state)
        results.append(flat(result))
        assert [*(result[0] if isinstance(result, tuple) else result).shape] == [HIDDEN]
    assert_allclose(results[0].numpy(), results[1].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}], ids=len
)
def test_gru_has_torchs_names_layout_and_signature(options, device):
    check_module(lambda nn: nn.GRU(IN, HIDDEN, **options), [normal(5, 2, IN)], device, pick=first)
    check_module(lambda nn: nn.GRUCell(IN, HIDDEN, options.get("bias", True)), [normal(5, IN)], device)
    shapes = {name: value.shape for name, value in torch.nn.GRU(IN, HIDDEN, **options).named_parameters()}
    assert_draws(
        lambda: nn.GRU(IN, HIDDEN, **options, device=device),
        lambda: {name: uniform(HIDDEN**-0.5, *shape) for name, shape in shapes.items()},
    )


def first(result):
    return result[0]


def test_positional_arguments_in_torchs_order():
    layer = nn.RNN(IN, HIDDEN, 2, "relu", False, True)
    assert (layer.nonlinearity, layer.bias, layer.batch_first, layer.num_layers) == ("relu", False, True, 2)
    assert nn.RNN(IN, HIDDEN, 2, "relu").bias is True
    layer = nn.LSTM(IN, HIDDEN, 2, False, True)
    assert (layer.bias, layer.batch_first) == (False, True)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_dropout_zeroes_hidden_states_between_layers_in_training(kind, device):
    layer, x = getattr(nn, kind)(IN, HIDDEN, 2, dropout=0.5, device=device), ndl.zeros(5, 2, IN, device=device)
    np.random.seed(3)
    first, second = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert (first != second).any()
    np.random.seed(3)
    assert_array_equal(layer(x)[0].numpy(), first)
    layer.dropout = 1.0  # the second layer reads zeros
    zeroed = layer(x)[0].numpy()
    layer.dropout = 0.5
    assert (layer.eval()(x)[0].numpy() != zeroed).any()
    state = np.random.get_state()
    assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    np.testing.assert_equal(np.random.get_state(), state)


@pytest.mark.parametrize("name", LAYERS)
def test_missing_states_are_zeros_and_every_parameter_has_a_gradient(name, device):
    function, _, arrays = twins(name, device, stateful=True)
    stateless, _, inputs = twins(name, device, stateful=False)
    zeros = [0 * array for array in arrays[1 : len(arrays) - len(inputs) + 1]]
    leaves = [ndl.Tensor(array, device=device) for array in inputs]
    y = stateless(*leaves)
    from_zeros = function(*(ndl.Tensor(array, device=device) for array in (inputs[0], *zeros, *inputs[1:])))
    assert_array_equal(y.numpy(), from_zeros.numpy())
    y.sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)


# ---- parameters ------------------------------------------------------------------------------------------------------


def drawn(prefix, inputs, hidden, gates, bias):
    """The draws of one cell, by name."""
    shapes = {"W_ih": (inputs, gates * hidden), "W_hh": (hidden, gates * hidden)}
    shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)} if bias else {}
    return {prefix + name: uniform(hidden**-0.5, *shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "gates"), [("RNNCell", 1), ("LSTMCell", 4)])
def test_a_cell_draws_its_weights_and_then_its_biases(name, gates, bias, device):
    assert_draws(
        lambda: getattr(nn, name)(3, 5, bias=bias, device=device), lambda: drawn("", 3, 5, gates, bias)
    )  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "cells", "gates"), [("RNN", "rnn_cells", 1), ("LSTM", "lstm_cells", 4)])
def test_layers_draw_their_cells_in_order(name, cells, gates, bias, device):
    assert_draws(
        lambda: getattr(nn, name)(3, 5, 2, bias, device=device),
        lambda: drawn(f"{cells}.0.", 3, 5, gates, bias) | drawn(f"{cells}.1.", 5, 5, gates, bias),
    )


def test_state_goes_from_one_layer_to_another(device):
    one, other = (nn.LSTM(IN, HIDDEN, 2, device=device) for _ in range(2))
    x = ndl.Tensor(normal(5, 2, IN).astype("float32"), device=device)
    assert flat(one(x)).numpy().tolist() != flat(other(x)).numpy().tolist()
    other.load_state_dict(one.state_dict())
    assert_array_equal(flat(one(x)).numpy(), flat(other(x)).numpy())
    assert one.buffers() == []


def test_the_state_of_one_call_continues_in_the_next(device):
    """Two halves of a sequence, with the state passed on, equal the full sequence."""
    x = ndl.Tensor(normal(6, 2, IN).astype("float32"), device=device)
    for layer in (nn.RNN(IN, HIDDEN, 2, device=device), nn.LSTM(IN, HIDDEN, 2, device=device)):
        y, last = layer(x)
        first, state = layer(x[:4])
        second, end = layer(x[4:], state)
        assert_allclose(ops.concatenate([first, second]).numpy(), y.numpy(), rtol=1e-6)
        assert_allclose(flat(end).numpy(), flat(last).numpy(), rtol=1e-6)


def test_an_empty_batch_has_empty_states(device):
    x = ndl.zeros(5, 0, IN, device=device)
    y, h = nn.RNN(IN, HIDDEN, 2, device=device)(x)
    assert (y.shape, h.shape) == ((5, 0, HIDDEN), (2, 0, HIDDEN))
    y, (h, c) = nn.LSTM(IN, HIDDEN, 2, device=device)(x)
    assert (y.shape, h.shape, c.shape) == ((5, 0, HIDDEN), (2, 0, HIDDEN), (2, 0, HIDDEN))


def test_the_input_of_all_steps_is_multiplied_at_once(device):
    y, _ = nn.RNN(IN, HIDDEN, 2, device=device)(ndl.zeros(7, 2, IN, device=device))
    names = [type(node.op).__name__ for node in ndl.autograd.find_topo_sort([y])]
    assert names.count("Linear") == 2 * (1 + 7)


def test_layers_print_their_sizes():
    assert repr(nn.RNNCell(2, 3)) == "RNNCell(2, 3, bias=True, nonlinearity=tanh)"
    assert repr(nn.LSTM(2, 3, bias=False)) == (
        "LSTM(\n  2, 3, num_layers=1\n  (lstm_cells.0): LSTMCell(2, 3, bias=False)\n)"
    )


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


ERRORS = [
    (lambda: nn.RNNCell(0, 3), ValueError, "RNNCell: input_size must be at least 1, but got 0"),
    (lambda: nn.RNNCell(2, 0), ValueError, "RNNCell: hidden_size must be at least 1, but got 0"),
    (lambda: nn.LSTMCell(2.5, 3), TypeError, "LSTMCell: input_size must be an integer, but got 2.5"),
    (
        lambda: nn.RNNCell(2, 3, nonlinearity="sigmoid"), ValueError,
        "RNNCell: nonlinearity must be one of 'tanh', 'relu', but got 'sigmoid'",
    ),
    (
        lambda: nn.RNN(2, 3, 1, True, "gelu"), ValueError,
        "RNN: nonlinearity must be one of 'tanh', 'relu', but got 'gelu'",
    ),
    (lambda: nn.RNN(2, 0), ValueError, "RNN: hidden_size must be at least 1, but got 0"),
    (lambda: nn.LSTM(0, 3), ValueError, "LSTM: input_size must be at least 1, but got 0"),
    (lambda: nn.RNN(2, 3, 0), ValueError, "RNN: num_layers must be at least 1, but got 0"),
    (lambda: nn.LSTM(2, 3, True), TypeError, "LSTM: num_layers must be an integer, but got True"),
    (lambda: nn.RNNCell(2, 3)(zeros(4, 3)), ValueError, "RNNCell: x must have shape (N, 2) or (2,), but got (4, 3)"),
    (lambda: nn.LSTMCell(2, 3)(zeros(3)), ValueError, "LSTMCell: x must have shape (N, 2) or (2,), but got (3,)"),
    (lambda: nn.GRUCell(2, 3)(zeros(2), zeros(1, 3)), ValueError, "GRUCell: h must have shape (3,), but got (1, 3)"),
    (lambda: nn.GRU(2, 3, bias=0), TypeError, "GRU: bias must be a bool, but got int"),
    (lambda: nn.LSTM(2, 3, bidirectional="no"), TypeError, "LSTM: bidirectional must be a bool, but got str"),
    (lambda: nn.RNN(2, 3, dropout=2), ValueError, "RNN: dropout must lie in [0, 1], but got 2"),
    (
        lambda: nn.GRU(2, 3, bidirectional=True)(zeros(5, 2), zeros(2, 1, 3)), ValueError,
        "GRU: h0 must have shape (2, 3), but got (2, 1, 3)",
    ),
    (
        lambda: nn.GRU(2, 3, batch_first=True)(zeros(5, 0, 2)), ValueError,
        "GRU: x must have shape (N, T, 2) or (T, 2) with at least 1 step, but got (5, 0, 2)",
    ),
    (
        lambda: nn.RNNCell(2, 3)(zeros(4, 2, dtype="int64")), TypeError,
        "RNNCell: x must have a floating dtype, but got int64",
    ),
    (
        lambda: nn.RNNCell(2, 3)(None), TypeError,
        "RNNCell: operands must be tensors, arrays, rectangular lists or numbers, but got NoneType",
    ),
    (
        lambda: nn.RNNCell(2, 3)(zeros(4, 2), zeros(1, 3)), ValueError,
        "RNNCell: h must have shape (4, 3), but got (1, 3)",
    ),
    (
        lambda: nn.RNNCell(2, 3)(zeros(4, 2), zeros(4, 3, dtype="bool")), TypeError,
        "RNNCell: h must have a floating dtype, but got bool",
    ),
    (
        lambda: nn.LSTMCell(2, 3)(zeros(4, 2), zeros(4, 3)), TypeError,
        "LSTMCell: h must be a pair (h, c), but got Tensor",
    ),
    (lambda: nn.LSTMCell(2, 3)(zeros(4, 2), [zeros(4, 3)]), TypeError, "LSTMCell: h must be a pair (h, c), but got 1"),
    (
        lambda: nn.LSTMCell(2, 3)(zeros(4, 2), (zeros(4, 3), zeros(4, 2))), ValueError,
        "LSTMCell: c must have shape (4, 3), but got (4, 2)",
    ),
    (
        lambda: nn.RNN(2, 3)(zeros(5, 4, 3)), ValueError,
        "RNN: x must have shape (T, N, 2) or (T, 2) with at least 1 step, but got (5, 4, 3)",
    ),
    (
        lambda: nn.LSTM(2, 3)(zeros(2)), ValueError,
        "LSTM: x must have shape (T, N, 2) or (T, 2) with at least 1 step, but got (2,)",
    ),
    (
        lambda: nn.RNN(2, 3)(zeros(0, 4, 2)), ValueError,
        "RNN: x must have shape (T, N, 2) or (T, 2) with at least 1 step, but got (0, 4, 2)",
    ),
    (
        lambda: nn.LSTM(2, 3)(zeros(5, 4, 2, dtype="int32")), TypeError,
        "LSTM: x must have a floating dtype, but got int32",
    ),
    (
        lambda: nn.RNN(2, 3, 2)(zeros(5, 4, 2), zeros(1, 4, 3)), ValueError,
        "RNN: h0 must have shape (2, 4, 3), but got (1, 4, 3)",
    ),
    (
        lambda: nn.LSTM(2, 3)(zeros(5, 4, 2), (zeros(1, 4, 3), zeros(1, 5, 3))), ValueError,
        "LSTM: c0 must have shape (1, 4, 3), but got (1, 5, 3)",
    ),
    (
        lambda: nn.LSTM(2, 3)(zeros(5, 4, 2), zeros(1, 4, 3)), TypeError,
        "LSTM: h must be a pair (h0, c0), but got Tensor",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
