"""RNN, GRU and LSTM over time, in one direction or both.

Shapes: T steps, N batch, D directions, H hidden size, G gates. x is (T, N, in), the weights W (D, G·H, in) and R
(D, G·H, H), the biases B (D, 2·G·H), the states (D, N, H), the outputs (T, D, N, H). With `layout=1`, N is the first
axis of x, of the states and of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from needle import init, ops
from needle.autograd import Tensor
from needle.nn import functional as F
from needle.nn.recurrence import State, Step, run_direction
from needle.onnx.registry import Node, operator
from needle.ops.operand import check_range

__all__: list[str] = []

Activation: TypeAlias = Callable[[Tensor], Tensor]

# Whether each direction runs backwards. "foward" is the default that the first schema of GRU declares.
DIRECTIONS = {"forward": (False,), "foward": (False,), "reverse": (True,), "bidirectional": (False, True)}

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

# Activations, and the defaults of their alpha and beta, if they have those; None must be set.
ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], tuple[float | None, ...]]] = {
    "affine": (lambda x, alpha, beta: x * alpha + beta, (1.0, 0.0)),
    "elu": (F.elu, (1.0,)),
    "hardsigmoid": (lambda x, alpha, beta: F.hardtanh(x * alpha + beta, 0, 1), (0.2, 0.5)),
    "leakyrelu": (F.leaky_relu, (0.01,)),
    "relu": (ops.relu, ()),
    "scaledtanh": (lambda x, alpha, beta: ops.tanh(x * beta) * alpha, (None, None)),
    "sigmoid": (ops.sigmoid, ()),
    "softplus": (ops.softplus, ()),
    "softsign": (F.softsign, ()),
    "tanh": (ops.tanh, ()),
    "thresholdedrelu": (lambda x, alpha: ops.where(ops.greater(x, alpha), x, 0), (1.0,)),
}


@operator("RNN")
def rnn(
    node: Node, x: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The outputs and final states of an Elman network."""
    return _over_time(node, _RNNStep, x, (W, R, B), lengths, (h,))


@operator("GRU")
def gru(
    node: Node, x: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The outputs and final states of gated recurrent units."""
    kind = _LinearGRUStep if node.get("linear_before_reset") else _GRUStep
    return _over_time(node, kind, x, (W, R, B), lengths, (h,))


@operator("LSTM")
def lstm(
    node: Node, x: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None, c: Tensor | None = None, P: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The outputs, final hidden states and final cell states of a long short-term memory."""
    return _over_time(node, _LSTMStep, x, (W, R, B, P), lengths, (h, c))


# ---- one step --------------------------------------------------------------------------------------------------------


class _Step(Step):
    """One step by the parameters of one direction: W (G·H, in), R (G·H, H), B (2·G·H)."""

    def __init__(self, node: Node, functions: Sequence[Activation], W: Tensor, R: Tensor, B: Tensor | None) -> None:
        self.node, self.functions, self.hidden_size = node, functions, R.shape[1]
        self.W_ih, self.W_hh = ops.transpose(W), ops.transpose(R)
        self.bias_ih = self.bias_hh = None
        if B is not None:
            self.set_biases(*ops.split(ops.reshape(B, (2, -1)), 0))

    def set_biases(self, of_input: Tensor, of_hidden: Tensor) -> None:
        """Add both to the product with the input, which is computed for all steps at once."""
        self.bias_ih = of_input + of_hidden

    def blocks(self, values: Tensor) -> tuple[Tensor, ...]:
        """Blocks of H columns: (N, G·H) -> G tensors (N, H)."""
        return ops.split(ops.reshape(values, (values.shape[0], -1, self.hidden_size)), 1).tuple()


class _RNNStep(_Step):
    """h' = f(x W + h R)."""

    def step(self, from_input: Tensor, state: State | None) -> State:
        assert state is not None
        (h,), (f,) = state, self.functions
        return (f(from_input + self.project_hidden(h)),)


class _GRUStep(_Step):
    """z, r = f(x W + h R), n = g(x W + (r · h) R), h' = (1 - z) · n + z · h."""

    def __init__(self, node: Node, functions: Sequence[Activation], W: Tensor, R: Tensor, B: Tensor | None) -> None:
        super().__init__(node, functions, W, R, B)
        split = 2 * self.hidden_size
        self.W_gates, self.W_new = self.W_hh[:, :split], self.W_hh[:, split:]

    def step(self, from_input: Tensor, state: State | None) -> State:
        assert state is not None
        (h,), (f, g) = state, self.functions
        (z, r, n), (z_h, r_h) = self.blocks(from_input), self.blocks(h @ self.W_gates)
        z, n = f(z + z_h), g(n + (f(r + r_h) * h) @ self.W_new)
        return (n + z * (h - n),)


class _LinearGRUStep(_Step):
    """As `_GRUStep`, but n = g(x W + r · (h R)), where the bias of h R is multiplied by r too."""

    def set_biases(self, of_input: Tensor, of_hidden: Tensor) -> None:
        self.bias_ih, self.bias_hh = of_input, of_hidden

    def step(self, from_input: Tensor, state: State | None) -> State:
        assert state is not None
        (h,), (f, g) = state, self.functions
        (z, r, n), (z_h, r_h, n_h) = self.blocks(from_input), self.blocks(self.project_hidden(h))
        z, n = f(z + z_h), g(n + f(r + r_h) * n_h)
        return (n + z * (h - n),)


class _LSTMStep(_Step):
    """i, f = f(x W + h R + P · c), c' = f · c + i · g(x W + h R), o = f(x W + h R + P · c'), h' = o · h(c').

    With `input_forget`, f = 1 - i.
    """

    def __init__(
        self, node: Node, functions: Sequence[Activation], W: Tensor, R: Tensor, B: Tensor | None, P: Tensor | None
    ) -> None:
        super().__init__(node, functions, W, R, B)
        self.peepholes = None if P is None else ops.split(ops.reshape(P, (3, -1)), 0).tuple()

    def step(self, from_input: Tensor, state: State | None) -> State:
        assert state is not None
        (h, c), (gate, of_input, of_cell) = state, self.functions
        i, o, f, new = self.blocks(from_input + self.project_hidden(h))
        if self.peepholes is not None:
            p_i, p_o, p_f = self.peepholes
            i, f = i + p_i * c, f + p_f * c
        i = gate(i)
        c = (1 - i if self.node["input_forget"] else gate(f)) * c + i * of_input(new)
        o = gate(o if self.peepholes is None else o + p_o * c)
        return o * of_cell(c), c


# ---- over time -------------------------------------------------------------------------------------------------------


def _over_time(
    node: Node, kind: Callable[..., _Step], x: Tensor, parameters: Sequence[Any], lengths: Tensor | None,
    states: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run each direction over x from `states`, zeros if they are None: the outputs and the final states."""
    if node["direction"] not in DIRECTIONS:
        raise ValueError(f"{node}: direction must be one of {', '.join(DIRECTIONS)}, but got {node['direction']!r}")
    directions, (W, R) = DIRECTIONS[node["direction"]], parameters[:2]
    lead = len(directions), GATES[node.op_type] * R.shape[2]
    if W.shape[:2] != lead or R.shape[:2] != lead:
        raise ValueError(f"{node}: W and R must be {lead} and the features they read, but got {W.shape} and {R.shape}")
    functions = _functions(node, len(directions))
    batch_first = node.get("layout")
    if batch_first:
        x = ops.permute(x, (1, 0, 2))
        states = [None if value is None else ops.permute(value, (1, 0, 2)) for value in states]
    steps, batch, _ = x.shape
    active = None if lengths is None else _active_steps(node, lengths, steps)
    outputs, final = [], []
    for i, backwards in enumerate(directions):
        cell = kind(node, functions[i], *(None if value is None else value[i] for value in parameters))
        zeros = init.zeros(batch, cell.hidden_size, device=x.device, dtype=x.dtype)
        initial = tuple(zeros if value is None else value[i] for value in states)
        y, state = run_direction(cell, x, initial, backwards, active)
        outputs.append(y)
        final.append(state)
    y, results = ops.stack(outputs, 1), [ops.stack(parts, 0) for parts in zip(*final, strict=True)]
    if batch_first:
        y, results = ops.permute(y, (2, 0, 1, 3)), [ops.permute(value, (1, 0, 2)) for value in results]
    return y, *results


def _active_steps(node: Node, lengths: Tensor, steps: int) -> Sequence[Tensor]:
    """For each step, which sequences (N, 1) reach it."""
    check_range(node.op_type, "sequence_lens", lengths, 0, steps)
    positions = ops.reshape(init.arange(steps, device=lengths.device), (steps, 1, 1))
    return ops.split(ops.less(positions, ops.reshape(lengths, (-1, 1))), 0).tuple()


def _functions(node: Node, directions: int) -> list[list[Activation]]:
    """The activations of each direction. Those that have an alpha or a beta take them in turn from the node's lists.

    `clip` bounds what the gates read. The standard does not say whether it bounds what the last activation of LSTM
    reads, c', too; as in onnxruntime, it does not.
    """
    n = len(DEFAULTS[node.op_type])
    names = node["activations"] or DEFAULTS[node.op_type] * directions
    if len(names) < n * directions:
        rule = f"activations must name {n} functions for each of {directions} directions"
        raise ValueError(f"{node}: {rule}, but got {names}")
    lists = [iter(node[f"activation_{name}"] or ()) for name in ("alpha", "beta")]
    functions: list[Activation] = []
    for name in names:
        if name.lower() not in ACTIVATIONS:
            raise ValueError(f"{node}: activations must be of {', '.join(ACTIVATIONS)}, but got {name!r}")
        function, numbers = ACTIVATIONS[name.lower()]
        arguments = [next(values, default) for values, default in zip(lists, numbers, strict=False)]
        if None in arguments:
            raise ValueError(f"{node}: {name} must have activation_alpha and activation_beta, but got {arguments}")
        bound = node["clip"] if len(functions) % n < 2 else None
        functions.append(partial(_activate, function, arguments, bound))
    return [functions[i * n : (i + 1) * n] for i in range(directions)]


def _activate(
    function: Callable[..., Tensor], arguments: Sequence[float | None], bound: float | None, x: Tensor
) -> Tensor:
    return function(ops.clip(x, -bound, bound) if bound else x, *arguments)
