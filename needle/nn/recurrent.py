"""Recurrent layers: cells that compute one step, and stacks of cells that run over time.

Shapes and dtypes as in `recurrence`.

Elman, "Finding Structure in Time" (1990); Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with the forget
gate of Gers, Schmidhuber and Cummins, "Learning to Forget" (2000).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from needle import check
from needle.autograd import Tensor, TensorLike, TensorTuple
from needle.backend import Device, DTypeLike
from needle.nn.recurrence import Cell, Recurrent, State, Step, draw, parameter_shapes
from needle.ops import relu, reshape, sigmoid, split, tanh

__all__ = ["LSTM", "RNN", "LSTMCell", "RNNCell"]

States: TypeAlias = tuple[TensorLike, TensorLike] | Sequence[TensorLike] | TensorTuple  # the pair that an LSTM takes

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": tanh, "relu": relu}
NAMES = tuple(NONLINEARITIES)

# ---- one step --------------------------------------------------------------------------------------------------------


class _CourseCell(Cell, Step):
    """Parameters of a cell: W_ih (in, gates·H), W_hh (H, gates·H) and, with `bias`, bias_ih and bias_hh (gates·H,).

    They are drawn in this order, uniformly within ± 1 / sqrt(H).
    """

    layouts: ClassVar = {"W_ih": (1, 0), "W_hh": (1, 0)}

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, device: Device | None, dtype: DTypeLike
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias)
        shapes = parameter_shapes(self.input_size, self.hidden_size, self.gates)
        self.W_ih, self.W_hh = (draw(shape[::-1], self.hidden_size, device, dtype) for shape in shapes[:2])
        for name, shape in zip(("bias_ih", "bias_hh"), shapes[2:], strict=True):
            self.register_parameter(name, draw(shape, self.hidden_size, device, dtype) if bias else None)


class RNNCell(_CourseCell):
    """One step of an Elman network: x (N, in), h (N, H) -> h' (N, H), or all without N.

    h' = nonlinearity(x @ W_ih + bias_ih + h @ W_hh + bias_hh).
    `nonlinearity` is "tanh" or "relu"; h = None stands for zeros.

    Parameters, in the order of their draws: W_ih (in, H), W_hh (H, H), and with `bias` bias_ih (H,) and bias_hh (H,),
    all uniform within ± 1 / sqrt(H). Raises ValueError if shapes do not fit, TypeError if x or h does not
    have the dtype of the parameters.

    Elman, "Finding Structure in Time" (1990).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        check.one_of("RNNCell", "nonlinearity", nonlinearity, NAMES)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def step(self, from_input: Tensor, state: State | None) -> State:
        check.one_of("RNNCell", "nonlinearity", self.nonlinearity, NAMES)  # it may have changed
        h = self.initial_state(from_input) if state is None else state[0]
        return (NONLINEARITIES[self.nonlinearity](from_input + self.project_hidden(h)),)

    def forward(self, x: TensorLike, h: TensorLike | None = None) -> Tensor:
        return self._step(self, x, None if h is None else (h,), ("h",))[0]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity}"


class LSTMCell(_CourseCell):
    """One step of a long short-term memory: x (N, in) and a pair (h, c), both (N, H) -> the pair (h', c').

    All may lack N.
    The gates i, f, g, o are blocks of H columns, in this order, of x @ W_ih + bias_ih + h @ W_hh + bias_hh:
    c' = sigmoid(f) · c + sigmoid(i) · tanh(g), h' = sigmoid(o) · tanh(c'). None stands for a pair of zeros.

    Parameters, in the order of their draws: W_ih (in, 4·H), W_hh (H, 4·H), and with `bias` bias_ih (4·H,) and bias_hh
    (4·H,), all uniform within ± 1 / sqrt(H). Raises ValueError if shapes do not fit, TypeError if x, h or c does
    not have the dtype of the parameters or the state is not a pair.

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
        h_next, c_next = self._step(self, x, None if h is None else _as_pair("LSTMCell", h, "(h, c)"), ("h", "c"))
        return h_next, c_next


# ---- over time -------------------------------------------------------------------------------------------------------


class _CourseRecurrent(Recurrent):
    """The course's layout: a list of cells, and with `bidirectional` a second list."""

    cells: ClassVar[str]  # the name of the list

    def _make_cells(self, make: Callable[[int], _CourseCell]) -> None:
        """Assign the cells; in each layer the one that runs forwards is drawn first."""
        made = [[make(size) for _ in self._lists()] for size in self._input_sizes()]
        for name, cells in zip(self._lists(), zip(*made, strict=True), strict=True):
            setattr(self, name, list(cells))

    def _lists(self) -> list[str]:
        return [self.cells, f"{self.cells}_reverse"] if self.bidirectional else [self.cells]

    def _layers(self) -> list[tuple[_CourseCell, ...]]:
        """The cells of each layer."""
        return list(zip(*(getattr(self, name) for name in self._lists()), strict=True))


class RNN(_CourseRecurrent):
    """Layers of `RNNCell` over time: x (T, N, in), h0 (L·D, N, H) -> outputs (T, N, D·H), h_n (L·D, N, H).

    The outputs are the hidden states of the last layer; h_n holds the hidden states of all layers after the last step.
    h0 = None stands for zeros. `rnn_cells` lists the L cells: the first reads in features, the others D·H, and they are
    drawn in this order. With `bidirectional` the cells in `rnn_cells_reverse` run backwards. In training, `dropout`
    zeroes hidden states between layers. With `batch_first` x and outputs are (N, T, …); without N, x is (T, in).

    torch's order of arguments, (…, num_layers, nonlinearity, bias, batch_first), is understood by its types.

    Raises ValueError if shapes do not fit, TypeError if x or h0 does not have the dtype of the parameters.

    Elman, "Finding Structure in Time" (1990).

    >>> import needle as ndl
    >>> outputs, h_n = RNN(3, 4, num_layers=2)(ndl.ones(5, 1, 3))
    >>> outputs.shape, h_n.shape
    ((5, 1, 4), (2, 1, 4))
    """

    cells = "rnn_cells"
    rnn_cells: list[RNNCell]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool | str = True,
        nonlinearity: str | bool = "tanh", device: Device | bool | None = None, dtype: DTypeLike = "float32", *,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
    ) -> None:  # fmt: skip
        flag: Any = bias
        if bias in NAMES:
            flag, nonlinearity = nonlinearity if isinstance(nonlinearity, bool) else True, bias
        if isinstance(device, bool):
            batch_first, device = device, None
        super().__init__(input_size, hidden_size, num_layers, flag, batch_first, dropout, bidirectional)
        name: str = check.one_of("RNN", "nonlinearity", nonlinearity, NAMES)
        self._make_cells(lambda size: RNNCell(size, self.hidden_size, self.bias, name, device, dtype))

    @property
    def nonlinearity(self) -> str:
        return self.rnn_cells[0].nonlinearity

    def forward(self, x: TensorLike, h0: TensorLike | None = None) -> tuple[Tensor, Tensor]:
        outputs, (h_n,) = self._run(self._layers(), x, None if h0 is None else (h0,), ("h0",))
        return outputs, h_n


class LSTM(_CourseRecurrent):
    """Layers of `LSTMCell` over time: x (T, N, in), (h0, c0), both (L·D, N, H) -> outputs (T, N, D·H), (h_n, c_n).

    The outputs are the hidden states of the last layer; h_n and c_n (L·D, N, H) hold the states of every layer after
    the last step. None stands for a pair of zeros. `lstm_cells` lists the L cells, `lstm_cells_reverse` those that run
    backwards; `bidirectional`, `dropout` and `batch_first` as in `RNN`. A bool in the place of `device` is torch's
    `batch_first`.

    Raises ValueError if shapes do not fit, TypeError if x, h0 or c0 does not have the dtype of the parameters or the
    state is not a pair.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997).

    >>> import needle as ndl
    >>> outputs, (h_n, c_n) = LSTM(3, 4)(ndl.ones(5, 1, 3))
    >>> outputs.shape, h_n.shape, c_n.shape
    ((5, 1, 4), (1, 1, 4), (1, 1, 4))
    """

    cells = "lstm_cells"
    lstm_cells: list[LSTMCell]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        device: Device | bool | None = None, dtype: DTypeLike = "float32", *, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
    ) -> None:  # fmt: skip
        if isinstance(device, bool):
            batch_first, device = device, None
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._make_cells(lambda size: LSTMCell(size, self.hidden_size, bias, device, dtype))

    def forward(self, x: TensorLike, h: States | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        states = None if h is None else _as_pair("LSTM", h, "(h0, c0)")
        outputs, (h_n, c_n) = self._run(self._layers(), x, states, ("h0", "c0"))
        return outputs, (h_n, c_n)


def _as_pair(op: str, states: Any, names: str) -> Sequence[TensorLike]:
    """Two states, which errors call `names`."""
    is_sequence = isinstance(states, (tuple, list, TensorTuple))
    if not is_sequence or len(states) != 2:
        actual = len(states) if is_sequence else type(states).__name__
        raise TypeError(f"{op}: h must be a pair {names}, but got {actual}")
    return states[0], states[1]
