"""Recurrent layers: cells that compute one step, and stacks of cells that run over time.

Shapes: N batch, T steps, L layers, H = hidden_size; time comes first, x (T, N, in). x and states must have a floating
dtype (TypeError); if x and the parameters differ, results have the wider one.

Elman, "Finding Structure in Time" (1990); Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with the forget
gate of Gers, Schmidhuber and Cummins, "Learning to Forget" (2000).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

from needle import check, init
from needle.autograd import Tensor, TensorLike, TensorTuple
from needle.backend import Device, DTypeLike
from needle.nn.module import Module, Parameter
from needle.ops import relu, reshape, sigmoid, split, stack, tanh
from needle.ops.operand import tensor

__all__ = ["LSTM", "RNN", "LSTMCell", "RNNCell"]

State: TypeAlias = tuple[Tensor, ...]  # the hidden state comes first
States: TypeAlias = tuple[TensorLike, TensorLike] | Sequence[TensorLike] | TensorTuple  # the pair that an LSTM takes

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": tanh, "relu": relu}
NAMES = tuple(NONLINEARITIES)

# ---- one step --------------------------------------------------------------------------------------------------------


class _Cell(Module):
    """Parameters of a cell, and their products with the input and the hidden state.

    The columns hold `gates` blocks of H units. W_ih (in, gates·H), W_hh (H, gates·H) and, with `bias`, bias_ih and
    bias_hh (gates·H,) are drawn in this order, uniformly within ± 1 / sqrt(H).
    """

    gates: ClassVar[int] = 1
    fixed = ("input_size", "hidden_size")
    layouts: ClassVar = {"W_ih": "T", "W_hh": "T"}

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, device: Device | None, dtype: DTypeLike
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        columns, bound = self.gates * self.hidden_size, 1 / math.sqrt(self.hidden_size)

        def draw(*shape: int) -> Tensor:
            return Parameter(init.rand(*shape, low=-bound, high=bound, device=device, dtype=dtype))

        self.W_ih = draw(self.input_size, columns)
        self.W_hh = draw(self.hidden_size, columns)
        self.bias_ih = draw(columns) if bias else None
        self.bias_hh = draw(columns) if bias else None

    @abstractmethod
    def step(self, from_input: Tensor, state: State | None) -> State:
        """The next state, from `project_input`'s result for one step (N, gates·H) and the state before, if any."""

    def project_input(self, x: Tensor) -> Tensor:
        """x @ W_ih + bias_ih, for any number of steps at once: (…, in) -> (…, gates·H)."""
        y = reshape(x, (-1, self.input_size)) @ self.W_ih
        return reshape(y if self.bias_ih is None else y + self.bias_ih, (*x.shape[:-1], y.shape[-1]))

    def project_hidden(self, h: Tensor) -> Tensor:
        """h @ W_hh + bias_hh: (N, H) -> (N, gates·H)."""
        y = h @ self.W_hh
        return y if self.bias_hh is None else y + self.bias_hh

    def initial_state(self, from_input: Tensor) -> Tensor:
        """Zeros (N, H), with the batch size, device and dtype of `from_input` (N, gates·H)."""
        shape = from_input.shape[0], self.hidden_size
        return init.zeros(*shape, device=from_input.device, dtype=from_input.dtype)

    def _check_input(self, x: TensorLike) -> Tensor:
        """x as a tensor (N, in)."""
        name = type(self).__name__
        x = tensor(name, x)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(f"{name}: x must have shape (N, {self.input_size}), but got {x.shape}")
        check.floats(name, x=x)
        return x

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias_ih is not None}"


class RNNCell(_Cell):
    """One step of an Elman network: x (N, in), h (N, H) -> h' (N, H).

    h' = nonlinearity(x @ W_ih + bias_ih + h @ W_hh + bias_hh).
    `nonlinearity` is "tanh" or "relu"; h = None stands for zeros.

    Parameters, in the order of their draws: W_ih (in, H), W_hh (H, H), and with `bias` bias_ih (H,) and bias_hh (H,),
    all uniform within ± 1 / sqrt(H). Raises ValueError if shapes do not fit, TypeError if x or h is not floating-point.

    Elman, "Finding Structure in Time" (1990).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        self.nonlinearity: str = check.one_of("RNNCell", "nonlinearity", nonlinearity, NAMES)
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def step(self, from_input: Tensor, state: State | None) -> State:
        h = self.initial_state(from_input) if state is None else state[0]
        return (NONLINEARITIES[self.nonlinearity](from_input + self.project_hidden(h)),)

    def forward(self, x: TensorLike, h: TensorLike | None = None) -> Tensor:
        x = self._check_input(x)
        state = None if h is None else (_as_state("RNNCell", "h", h, (x.shape[0], self.hidden_size)),)
        return self.step(self.project_input(x), state)[0]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity}"


class LSTMCell(_Cell):
    """One step of a long short-term memory: x (N, in) and a pair (h, c), both (N, H) -> the pair (h', c').

    The gates i, f, g, o are blocks of H columns, in this order, of x @ W_ih + bias_ih + h @ W_hh + bias_hh:
    c' = sigmoid(f) · c + sigmoid(i) · tanh(g), h' = sigmoid(o) · tanh(c'). None stands for a pair of zeros.

    Parameters, in the order of their draws: W_ih (in, 4·H), W_hh (H, 4·H), and with `bias` bias_ih (4·H,) and bias_hh
    (4·H,), all uniform within ± 1 / sqrt(H). Raises ValueError if shapes do not fit, TypeError if x, h or c has no
    floating dtype or the state is not a pair.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997); Gers, Schmidhuber and Cummins, "Learning to Forget"
    (2000), for f.
    """

    gates = 4

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def step(self, from_input: Tensor, state: State | None) -> tuple[Tensor, Tensor]:
        h, c = (self.initial_state(from_input), self.initial_state(from_input)) if state is None else state
        gates = reshape(from_input + self.project_hidden(h), (-1, self.gates, self.hidden_size))
        i, f, g, o = split(gates, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def forward(self, x: TensorLike, h: States | None = None) -> tuple[Tensor, Tensor]:
        x = self._check_input(x)
        shape = (x.shape[0], self.hidden_size)
        state = None if h is None else _as_pair("LSTMCell", h, ("h", "c"), shape)
        return self.step(self.project_input(x), state)


# ---- over time -------------------------------------------------------------------------------------------------------


class _Recurrent(Module):
    """Layers of cells over time: the first reads x, every other one the hidden states of the layer before it."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        self.num_layers = check.integer(name, "num_layers", num_layers, least=1)

    def _input_sizes(self) -> list[int]:
        """The number of features that each layer reads."""
        return [self.input_size] + [self.hidden_size] * (self.num_layers - 1)

    def _check_input(self, x: TensorLike) -> tuple[Tensor, tuple[int, ...]]:
        """x as a tensor (T, N, in), and the shape of its states, (L, N, H)."""
        name = type(self).__name__
        x = tensor(name, x)
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.shape[0]:
            raise ValueError(
                f"{name}: x must have shape (T, N, {self.input_size}) with at least 1 step, but got {x.shape}"
            )
        check.floats(name, x=x)
        return x, (self.num_layers, x.shape[1], self.hidden_size)

    def _over_time(self, cells: Sequence[_Cell], x: Tensor, states: State | None) -> tuple[Tensor, State]:
        """Run all layers: x (T, N, in) and initial states (L, N, H) each -> outputs (T, N, H) and final states.

        Each layer multiplies the input of all steps by W_ih at once, since that product needs no hidden state.
        """
        initial: Iterable[State | None] = [None] * len(cells)
        if states is not None:
            initial = zip(*(split(state, 0) for state in states), strict=True)
        final = []
        for cell, state in zip(cells, initial, strict=True):
            outputs = []
            for from_input in split(cell.project_input(x), 0):
                state = cell.step(from_input, state)
                outputs.append(state[0])
            x = stack(outputs, 0)
            final.append(state)
        return x, tuple(stack(parts, 0) for parts in zip(*final, strict=True))

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


class RNN(_Recurrent):
    """Layers of `RNNCell` over time: x (T, N, in), h0 (L, N, H) -> outputs (T, N, H), h_n (L, N, H).

    The outputs are the hidden states of the last layer; h_n holds the hidden states of all layers after the last step.
    h0 = None stands for zeros. `rnn_cells` lists the L cells: the first reads in features, the others H, and they are
    drawn in this order. Raises ValueError if shapes do not fit, TypeError if x or h0 is not floating-point.

    Elman, "Finding Structure in Time" (1990).

    >>> import needle as ndl
    >>> outputs, h_n = RNN(3, 4, num_layers=2)(ndl.ones(5, 1, 3))
    >>> outputs.shape, h_n.shape
    ((5, 1, 4), (2, 1, 4))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, nonlinearity: str = "tanh",
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers)
        check.one_of("RNN", "nonlinearity", nonlinearity, NAMES)
        self.rnn_cells = [
            RNNCell(size, self.hidden_size, bias, nonlinearity, device, dtype) for size in self._input_sizes()
        ]

    def forward(self, x: TensorLike, h0: TensorLike | None = None) -> tuple[Tensor, Tensor]:
        x, shape = self._check_input(x)
        states = None if h0 is None else (_as_state("RNN", "h0", h0, shape),)
        outputs, (h_n,) = self._over_time(self.rnn_cells, x, states)
        return outputs, h_n


class LSTM(_Recurrent):
    """Layers of `LSTMCell` over time: x (T, N, in), (h0, c0), both (L, N, H) -> outputs (T, N, H), (h_n, c_n).

    The outputs are the hidden states of the last layer; h_n and c_n (L, N, H) hold the states of every layer after the
    last step. None stands for a pair of zeros. `lstm_cells` lists the L cells: the first reads in features, the others
    H, and they are drawn in this order. Raises ValueError if shapes do not fit, TypeError if x, h0 or c0 has no
    floating dtype or the state is not a pair.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997).

    >>> import needle as ndl
    >>> outputs, (h_n, c_n) = LSTM(3, 4)(ndl.ones(5, 1, 3))
    >>> outputs.shape, h_n.shape, c_n.shape
    ((5, 1, 4), (1, 1, 4), (1, 1, 4))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers)
        self.lstm_cells = [LSTMCell(size, self.hidden_size, bias, device, dtype) for size in self._input_sizes()]

    def forward(self, x: TensorLike, h: States | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x, shape = self._check_input(x)
        states = None if h is None else _as_pair("LSTM", h, ("h0", "c0"), shape)
        outputs, (h_n, c_n) = self._over_time(self.lstm_cells, x, states)
        return outputs, (h_n, c_n)


# ---- states as arguments ---------------------------------------------------------------------------------------------


def _as_state(op: str, name: str, state: TensorLike, shape: tuple[int, ...]) -> Tensor:
    """A state as a tensor of `shape`."""
    state = tensor(op, state)
    if state.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, but got {state.shape}")
    check.floats(op, **{name: state})
    return state


def _as_pair(op: str, states: Any, names: tuple[str, str], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two states, called `names`, as tensors of `shape`."""
    is_sequence = isinstance(states, (tuple, list, TensorTuple))
    if not is_sequence or len(states) != 2:
        actual = len(states) if is_sequence else type(states).__name__
        raise TypeError(f"{op}: h must be a pair ({', '.join(names)}), but got {actual}")
    return _as_state(op, names[0], states[0], shape), _as_state(op, names[1], states[1], shape)
