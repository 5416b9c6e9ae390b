"""Recurrent layers: cells that make one step, and stacks of cells that run over time.

Elman, "Finding Structure in Time" (1990); Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with the forget
gate of Gers, Schmidhuber and Cummins, "Learning to Forget" (2000).
"""

from __future__ import annotations

import math

from needle import check, init
from needle.autograd import TensorTuple
from needle.nn.module import Module, Parameter
from needle.ops import relu, reshape, sigmoid, split, stack, tanh
from needle.ops.conv import check_floats
from needle.ops.operand import tensor

NONLINEARITIES = {"tanh": tanh, "relu": relu}
NAMES = tuple(NONLINEARITIES)

# ---- one step --------------------------------------------------------------------------------------------------------


class _Cell(Module):
    """What cells share: the parameters, and their product with the input.

    `gates` units stand side by side in the columns. W_ih (in, gates·H), W_hh (H, gates·H) and, with `bias`, bias_ih and
    bias_hh (gates·H,) are drawn in this order, uniformly within ± 1 / sqrt(H).

    A state is a tuple of tensors (N, H) that begins with the hidden one. Each cell has `step(given, state)`: what the
    input gives to the gates (N, gates·H), and a state, or None before the first step -> the next state.
    """

    gates = 1

    def __init__(self, input_size, hidden_size, bias, device, dtype):
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        columns, bound = self.gates * self.hidden_size, 1 / math.sqrt(self.hidden_size)
        options = {"low": -bound, "high": bound, "device": device, "dtype": dtype}
        self.W_ih = Parameter(init.rand(self.input_size, columns, **options))
        self.W_hh = Parameter(init.rand(self.hidden_size, columns, **options))
        self.bias_ih = Parameter(init.rand(columns, **options)) if bias else None
        self.bias_hh = Parameter(init.rand(columns, **options)) if bias else None

    def from_input(self, x):
        """What the input gives to the gates, for any number of steps at once: (…, in) -> (…, gates·H)."""
        y = reshape(x, (-1, self.input_size)) @ self.W_ih
        return reshape(y if self.bias_ih is None else y + self.bias_ih, (*x.shape[:-1], y.shape[-1]))

    def from_hidden(self, h):
        """What the hidden state gives to the gates: (N, H) -> (N, gates·H)."""
        y = h @ self.W_hh
        return y if self.bias_hh is None else y + self.bias_hh

    def blank(self, given):
        """The state before the first step, zeros (N, H), for gates of which the input has `given` (N, gates·H)."""
        return init.zeros(given.shape[0], self.hidden_size, device=given.device, dtype=given.dtype)

    def checked(self, x):
        """x as a tensor (N, in)."""
        name, x = type(self).__name__, tensor(type(self).__name__, x)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(f"{name}: x must have shape (N, {self.input_size}), but got {x.shape}")
        check_floats(name, x=x)
        return x

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias_ih is not None}"


class RNNCell(_Cell):
    """nonlinearity(x @ W_ih + bias_ih + h @ W_hh + bias_hh): x (N, in), h (N, H) -> (N, H).

    `nonlinearity` is "tanh" or "relu"; h is zeros where it is None.

    Parameters, in the order in which they are drawn: W_ih (in, H), W_hh (H, H), and with `bias` bias_ih (H,) and
    bias_hh (H,), all uniform within ± 1 / sqrt(H). Raises ValueError where shapes do not fit, TypeError where x or h is
    of no floating dtype.

    Elman, "Finding Structure in Time" (1990).
    """

    def __init__(
        self, input_size, hidden_size, bias=True, nonlinearity="tanh", device=None, dtype="float32"
    ):  # fmt: skip
        self.nonlinearity = check.one_of("RNNCell", "nonlinearity", nonlinearity, NAMES)
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def step(self, given, state):
        (h,) = (self.blank(given),) if state is None else state
        return (NONLINEARITIES[self.nonlinearity](given + self.from_hidden(h)),)

    def forward(self, x, h=None):
        x = self.checked(x)
        state = None if h is None else (_state("RNNCell", "h", h, (x.shape[0], self.hidden_size)),)
        (h,) = self.step(self.from_input(x), state)
        return h

    def extra_repr(self):
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity}"


class LSTMCell(_Cell):
    """One step of a long short-term memory: x (N, in) and (h, c), both (N, H) -> (h', c') of the same shapes.

    The gates i, f, g, o are H columns each, in this order, of x @ W_ih + bias_ih + h @ W_hh + bias_hh:
    c' = sigmoid(f) · c + sigmoid(i) · tanh(g), h' = sigmoid(o) · tanh(c'). h and c are zeros where (h, c) is None.

    Parameters, in the order in which they are drawn: W_ih (in, 4·H), W_hh (H, 4·H), and with `bias` bias_ih (4·H,) and
    bias_hh (4·H,), all uniform within ± 1 / sqrt(H). Raises ValueError where shapes do not fit, TypeError where x, h or
    c is of no floating dtype or there is no pair (h, c).

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997); Gers, Schmidhuber and Cummins, "Learning to Forget"
    (2000), for f.
    """

    gates = 4

    def __init__(self, input_size, hidden_size, bias=True, device=None, dtype="float32"):
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def step(self, given, state):
        h, c = (self.blank(given), self.blank(given)) if state is None else state
        gates = reshape(given + self.from_hidden(h), (-1, self.gates, self.hidden_size))
        i, f, g, o = split(gates, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def forward(self, x, h=None):
        x = self.checked(x)
        shape = (x.shape[0], self.hidden_size)
        state = None if h is None else _pair("LSTMCell", h, ("h", "c"), shape)
        return self.step(self.from_input(x), state)


# ---- over time -------------------------------------------------------------------------------------------------------


class _Recurrent(Module):
    """Layers of cells over time: the first reads x, each other one the hidden states of the layer before it."""

    def __init__(self, input_size, hidden_size, num_layers):
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        self.num_layers = check.integer(name, "num_layers", num_layers, least=1)

    def layers(self, make):
        """The cells, made by `make(input_size, hidden_size)` from the first layer to the last."""
        return [make(self.hidden_size if i else self.input_size, self.hidden_size) for i in range(self.num_layers)]

    def checked(self, x):
        """x as a tensor (T, N, in), and the shape of its states, (L, N, H)."""
        name, x = type(self).__name__, tensor(type(self).__name__, x)
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.shape[0]:
            raise ValueError(
                f"{name}: x must have shape (T, N, {self.input_size}) with at least 1 step, but got {x.shape}"
            )
        check_floats(name, x=x)
        return x, (self.num_layers, x.shape[1], self.hidden_size)

    def over_time(self, cells, x, states):
        """x (T, N, in) and the parts of the first states, (L, N, H) each -> (T, N, H), and those parts after T steps.

        The input of all steps is multiplied by W_ih at once, for it does not wait for the hidden states.
        """
        before = [None] * len(cells) if states is None else zip(*(split(part, 0) for part in states), strict=True)
        after = []
        for cell, state in zip(cells, before, strict=True):
            outputs = []
            for given in split(cell.from_input(x), 0):
                state = cell.step(given, state)
                outputs.append(state[0])
            x = stack(outputs, 0)
            after.append(state)
        return x, tuple(stack(parts, 0) for parts in zip(*after, strict=True))

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


class RNN(_Recurrent):
    """Layers of `RNNCell` over time: x (T, N, in), h0 (L, N, H) -> outputs (T, N, H), h_n (L, N, H).

    The outputs are the hidden states of the last layer, h_n is those of every layer after the last step; h0 is zeros
    where it is None. `rnn_cells` holds the L cells: the first reads in features, the others H, and they are drawn in
    this order. Raises ValueError where shapes do not fit, TypeError where x or h0 is of no floating dtype.
    """

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, nonlinearity="tanh", device=None, dtype="float32"
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers)
        check.one_of("RNN", "nonlinearity", nonlinearity, NAMES)
        self.rnn_cells = self.layers(lambda *sizes: RNNCell(*sizes, bias, nonlinearity, device, dtype))

    def forward(self, x, h0=None):
        x, shape = self.checked(x)
        states = None if h0 is None else (_state("RNN", "h0", h0, shape),)
        outputs, (h_n,) = self.over_time(self.rnn_cells, x, states)
        return outputs, h_n


class LSTM(_Recurrent):
    """Layers of `LSTMCell` over time: x (T, N, in), (h0, c0), both (L, N, H) -> outputs (T, N, H), (h_n, c_n).

    The outputs are the hidden states of the last layer, h_n and c_n (L, N, H) the states of every layer after the last
    step; h0 and c0 are zeros where the pair is None. `lstm_cells` holds the L cells: the first reads in features, the
    others H, and they are drawn in this order. Raises ValueError where shapes do not fit, TypeError where x, h0 or c0
    is of no floating dtype or there is no pair (h0, c0).
    """

    def __init__(self, input_size, hidden_size, num_layers=1, bias=True, device=None, dtype="float32"):
        super().__init__(input_size, hidden_size, num_layers)
        self.lstm_cells = self.layers(lambda *sizes: LSTMCell(*sizes, bias, device, dtype))

    def forward(self, x, h=None):
        x, shape = self.checked(x)
        states = None if h is None else _pair("LSTM", h, ("h0", "c0"), shape)
        return self.over_time(self.lstm_cells, x, states)


# ---- states as arguments ---------------------------------------------------------------------------------------------


def _state(op, name, state, shape):
    """A state as a tensor of that shape."""
    state = tensor(op, state)
    if state.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, but got {state.shape}")
    check_floats(op, **{name: state})
    return state


def _pair(op, states, names, shape):
    """Two states, called `names`, of that shape."""
    if not isinstance(states, (tuple, list, TensorTuple)) or len(states) != 2:
        given = len(states) if isinstance(states, (tuple, list, TensorTuple)) else type(states).__name__
        raise TypeError(f"{op}: h must be a pair ({', '.join(names)}), but got {given}")
    return tuple(_state(op, name, state, shape) for name, state in zip(names, states, strict=True))
