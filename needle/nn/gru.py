"""The gated recurrent unit, under torch's names and in torch's layout.

Shapes as in `recurrence`. Unlike those of `RNN` and `LSTM`, the parameters have torch's names and axes, so that a state
of torch loads as it is.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation" (2014); the
reset gate applies after the product with the hidden state, as in torch and cuDNN.
"""

from __future__ import annotations

from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn.recurrence import Cell, Recurrent, State, Step, draw, parameter_shapes
from needle.ops import permute, reshape, sigmoid, split, tanh

__all__ = ["GRU", "GRUCell"]

GATES = 3  # r, z, n
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _GRUStep(Step):
    """One step, by the parameters of `module` whose names end in `suffix`."""

    weight_names = ("weight_ih", "weight_hh")

    def __init__(self, module: GRU | GRUCell, suffix: str = "") -> None:
        self.hidden_size = module.hidden_size
        self.W_ih, self.W_hh = (permute(getattr(module, name + suffix), (1, 0)) for name in NAMES[:2])
        self.bias_ih, self.bias_hh = (getattr(module, name + suffix, None) for name in NAMES[2:])

    def step(self, from_input: Tensor, state: State | None) -> State:
        h = self.initial_state(from_input) if state is None else state[0]
        shape = (-1, GATES, self.hidden_size)
        r_x, z_x, n_x = split(reshape(from_input, shape), 1)
        r_h, z_h, n_h = split(reshape(self.project_hidden(h), shape), 1)
        z, n = sigmoid(z_x + z_h), tanh(n_x + sigmoid(r_x + r_h) * n_h)
        return (n + z * (h - n),)


def _register(module: GRU | GRUCell, suffix: str, input_size: int, device: Device | None, dtype: DTypeLike) -> None:
    """Draw the parameters of one step."""
    shapes = parameter_shapes(input_size, module.hidden_size, GATES)
    for name, shape in zip(NAMES, shapes if module.bias else shapes[:2], strict=False):
        setattr(module, name + suffix, draw(shape, module.hidden_size, device, dtype))


class GRUCell(Cell):
    """One step of a gated recurrent unit: x (N, in), h (N, H) -> h' (N, H), or all without N.

    The gates r, z, n are blocks of H rows, in this order. With W = weight_ih, U = weight_hh, and their biases b and c:
    r = sigmoid(W_r x + b_r + U_r h + c_r), z = sigmoid(W_z x + b_z + U_z h + c_z),
    n = tanh(W_n x + b_n + r · (U_n h + c_n)), h' = (1 - z) · n + z · h. h = None stands for zeros.

    Parameters, in the order of their draws: weight_ih (3·H, in), weight_hh (3·H, H), and with `bias` bias_ih (3·H,) and
    bias_hh (3·H,), all uniform within ± 1 / sqrt(H). Raises ValueError if shapes do not fit, TypeError if x or h does
    not have the dtype of the parameters.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014), equations 5 to 8.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias)
        _register(self, "", self.input_size, device, dtype)

    def forward(self, x: TensorLike, h: TensorLike | None = None) -> Tensor:
        return self._step(_GRUStep(self), x, None if h is None else (h,), ("h",))[0]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class GRU(Recurrent):
    """Layers of gated recurrent units over time: x (T, N, in), h0 (L·D, N, H) -> outputs (T, N, D·H), h_n (L·D, N, H).

    The outputs are the hidden states of the last layer; h_n holds the hidden states of all layers after the last step.
    h0 = None stands for zeros. The parameters of layer l are those of a `GRUCell` with the suffix _l0, _l1, …, and
    _l0_reverse, … for the cells that run backwards with `bidirectional`. The first layer reads in features, the others
    D·H. In training, `dropout` zeroes hidden states between layers. With `batch_first` x and outputs are (N, T, …);
    without N, x is (T, in).

    Raises ValueError if shapes do not fit, TypeError if x or h0 does not have the dtype of the parameters.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014).

    >>> import needle as ndl
    >>> outputs, h_n = GRU(3, 4, num_layers=2, bidirectional=True)(ndl.ones(5, 1, 3))
    >>> outputs.shape, h_n.shape
    ((5, 1, 8), (4, 1, 4))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        for size, suffixes in zip(self._input_sizes(), self._suffixes(), strict=True):
            for suffix in suffixes:
                _register(self, suffix, size, device, dtype)

    def _suffixes(self) -> list[list[str]]:
        """The suffixes of each layer's parameters, one for each direction."""
        return [[f"_l{i}", f"_l{i}_reverse"][: 1 + self.bidirectional] for i in range(self.num_layers)]

    def forward(self, x: TensorLike, h0: TensorLike | None = None) -> tuple[Tensor, Tensor]:
        layers = [[_GRUStep(self, suffix) for suffix in suffixes] for suffixes in self._suffixes()]
        outputs, (h_n,) = self._run(layers, x, None if h0 is None else (h0,), ("h0",))
        return outputs, h_n

    def extra_repr(self) -> str:
        text = super().extra_repr() if self.bias else super().extra_repr() + ", bias=False"
        return text.replace(", num_layers=1", "")
