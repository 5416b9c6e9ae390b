"""Cells and recurrent layers: against torch to second order, their draws, states, dtypes and errors."""

from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import nn, ops
from tests.nn.compare import assert_draws, assert_floats_are, uniform
from tests.nn.functional.alike import normal, raises
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
}


def cells_of(layer):
    """The cells of a layer, or the cell itself."""
    return getattr(layer, "rnn_cells", getattr(layer, "lstm_cells", [layer]))


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
    layer = getattr(nn, kind)(*arguments, device=device, dtype="float64")
    twin = getattr(torch.nn, kind)(*torch_arguments, dtype=torch.float64)
    cell = kind.endswith("Cell")
    slots = [
        (one, parameter, TORCH_NAMES[parameter] + ("" if cell else f"_l{i}"))
        for i, one in enumerate(cells_of(layer))
        for parameter in PARAMETERS
        if getattr(one, parameter) is not None
    ]
    lead = () if cell else (len(cells_of(layer)),)
    states = [normal(*lead, 2, HIDDEN, seed=9 + i) for i in range(1 + kind.startswith("LSTM"))] if stateful else []
    x = normal(2, IN) if cell else normal(5, 2, IN)

    def call(layer, x, states):
        return layer(x) if not states else layer(x, tuple(states) if kind.startswith("LSTM") else states[0])

    def function(x, *tensors):
        for (one, parameter, _), value in zip(slots, tensors[len(states) :], strict=True):
            setattr(one, parameter, value)
        return flat(call(layer, x, tensors[: len(states)]))

    def torch_function(x, *tensors):
        values = {name: value.mT if value.ndim == 2 else value
                  for (*_, name), value in zip(slots, tensors[len(states) :], strict=True)}  # fmt: skip
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


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_float64_in_a_float32_layer(name, device):
    layer = getattr(nn, name)(IN, HIDDEN, 2, device=device)
    y, states = layer(ndl.Tensor(normal(5, 2, IN), device=device))
    assert y.dtype == "float64"
    flat((y, states)).sum().backward()
    assert {str(parameter.grad.dtype) for parameter in layer.parameters()} == {"float32"}


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
    x = ndl.Tensor(normal(6, 2, IN), device=device)
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
    assert names.count("MatMul") == 2 * (1 + 7)


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
    (lambda: nn.RNNCell(2, 3)(zeros(4, 3)), ValueError, "RNNCell: x must have shape (N, 2), but got (4, 3)"),
    (lambda: nn.LSTMCell(2, 3)(zeros(2)), ValueError, "LSTMCell: x must have shape (N, 2), but got (2,)"),
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
        "RNN: x must have shape (T, N, 2) with at least 1 step, but got (5, 4, 3)",
    ),
    (
        lambda: nn.LSTM(2, 3)(zeros(5, 2)), ValueError,
        "LSTM: x must have shape (T, N, 2) with at least 1 step, but got (5, 2)",
    ),
    (
        lambda: nn.RNN(2, 3)(zeros(0, 4, 2)), ValueError,
        "RNN: x must have shape (T, N, 2) with at least 1 step, but got (0, 4, 2)",
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
