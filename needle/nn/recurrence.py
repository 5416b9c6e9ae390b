"""What recurrent layers share: products of one step, cells, layers over time, states as arguments.

Shapes: N batch, T steps, L layers, H = hidden_size, D = 2 with `bidirectional`, else 1; time comes first, x (T, N, in),
or second with `batch_first`, x (N, T, in). x and states may lack N. They must have the dtype of the parameters.

Both directions: Schuster and Paliwal, "Bidirectional Recurrent Neural Networks" (1997).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeAlias

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn.functional.dropout import host_dropout
from needle.nn.module import Module
from needle.nn.parameter import Parameter
from needle.ops import concatenate, permute, reshape, split, stack, where
from needle.ops.linear import affine, fit
from needle.ops.operand import tensor

__all__ = ["Cell", "Recurrent", "State", "Step", "as_states", "draw", "parameter_shapes", "run_direction"]

State: TypeAlias = tuple[Tensor, ...]  # the hidden state comes first

# ---- one step --------------------------------------------------------------------------------------------------------


class Step:
    """One step of a recurrence: the products with the input and the hidden state, whose columns hold blocks of H."""

    weight_names: ClassVar[tuple[str, str]] = ("W_ih", "W_hh")  # in errors
    hidden_size: int
    W_ih: Tensor  # (in, gates·H)
    W_hh: Tensor  # (H, gates·H)
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    @abstractmethod
    def step(self, from_input: Tensor, state: State | None) -> State:
        """The next state, from `project_input`'s result for one step (N, gates·H) and the state before, if any."""

    def project_input(self, x: Tensor) -> Tensor:
        """x @ W_ih + bias_ih, for any number of steps at once: (…, in) -> (…, gates·H)."""
        y = _product(reshape(x, (-1, x.shape[-1])), self.W_ih, self.bias_ih)
        return reshape(y, (*x.shape[:-1], y.shape[-1]))

    def project_hidden(self, h: Tensor) -> Tensor:
        """h @ W_hh + bias_hh: (N, H) -> (N, gates·H)."""
        return _product(h, self.W_hh, self.bias_hh)

    def initial_state(self, from_input: Tensor) -> Tensor:
        """Zeros (N, H), with the batch size, device and dtype of `from_input` (N, gates·H)."""
        shape = from_input.shape[0], self.hidden_size
        return init.zeros(*shape, device=from_input.device, dtype=from_input.dtype)

    def check_dtypes(self, op: str, x: Tensor) -> None:
        """Refuse x, and parameters that were replaced, unless they share a floating dtype."""
        check.floats(op, x=x)
        parameters = self.W_ih, self.W_hh, self.bias_ih, self.bias_hh
        for name, parameter in zip((*self.weight_names, "bias_ih", "bias_hh"), parameters, strict=True):
            if name in self.weight_names:
                check.instance(op, name, parameter, Tensor)
            if parameter is not None and parameter.dtype != x.dtype:
                check.floats(op, **{"x": x, name: parameter})


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, in) @ weight + bias."""
    if fit(weight, bias, x.shape[-1]):
        return affine(x, weight, bias)
    y = x @ weight  # of parameters that were replaced by others
    return y if bias is None else y + bias


class Cell(Module):
    """Sizes and operands of a cell, a module that computes one step."""

    gates: ClassVar[int] = 1
    fixed = ("input_size", "hidden_size", "bias")
    flags = ("bias",)

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        self.bias = bias

    def _step(self, step: Step, x: TensorLike, states: Sequence[TensorLike] | None, names: Sequence[str]) -> State:
        """One step from x (N, in) or (in,), and states (N, H) or (H,) that errors call `names`."""
        name = type(self).__name__
        x = tensor(name, x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            size = self.input_size
            raise ValueError(f"{name}: x must have shape (N, {size}) or ({size},), but got {x.shape}")
        step.check_dtypes(name, x)
        batch = x.shape[:-1] or (1,)
        checked = as_states(name, names, states, x, (*x.shape[:-1], self.hidden_size))
        if checked is not None:
            checked = tuple(reshape(state, (*batch, self.hidden_size)) for state in checked)
        result = step.step(step.project_input(reshape(x, (*batch, self.input_size))), checked)
        return result if x.ndim == 2 else tuple(reshape(state, (self.hidden_size,)) for state in result)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


def parameter_shapes(input_size: int, hidden_size: int, gates: int) -> list[tuple[int, ...]]:
    """The shapes of torch's weight_ih, weight_hh, bias_ih and bias_hh."""
    rows = gates * hidden_size
    return [(rows, input_size), (rows, hidden_size), (rows,), (rows,)]


def draw(shape: tuple[int, ...], hidden_size: int, device: Device | None, dtype: DTypeLike) -> Parameter:
    """A Parameter drawn uniformly within ± 1 / sqrt(H)."""
    bound = 1 / math.sqrt(hidden_size)
    return Parameter(init.rand(*shape, low=-bound, high=bound, device=device, dtype=dtype))


# ---- over time -------------------------------------------------------------------------------------------------------


class Recurrent(Module):
    """Layers of cells over time: the first reads x, every other one the hidden states of the layer before it.

    With `bidirectional`, a second cell of each layer runs backwards, and the hidden states of both are concatenated.
    """

    fixed = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")
    flags = ("bias", "batch_first", "bidirectional")

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float,
        bidirectional: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.input_size = check.integer(name, "input_size", input_size, least=1)
        self.hidden_size = check.integer(name, "hidden_size", hidden_size, least=1)
        self.num_layers = check.integer(name, "num_layers", num_layers, least=1)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = check.number(name, "dropout", dropout, least=0, most=1)

    def _input_sizes(self) -> list[int]:
        """The number of features that each layer reads."""
        return [self.input_size] + [self.hidden_size * (1 + self.bidirectional)] * (self.num_layers - 1)

    def _run(
        self, cells: Sequence[Sequence[Step]], x: TensorLike, states: Sequence[TensorLike] | None,
        names: Sequence[str],
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Run `cells`, one or two for each layer, over x from `states` (L·D, N, H): the outputs and final states."""
        name = type(self).__name__
        x = tensor(name, x)
        has_batch = x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or not x.shape[has_batch and self.batch_first]:
            axes, size = "N, T" if self.batch_first else "T, N", self.input_size
            raise ValueError(
                f"{name}: x must have shape ({axes}, {size}) or (T, {size}) with at least 1 step, but got {x.shape}"
            )
        for cell in (cell for layer in cells for cell in layer):
            cell.check_dtypes(name, x)
        if not has_batch:
            x = reshape(x, (x.shape[0], 1, x.shape[1]))
        elif self.batch_first:
            x = permute(x, (1, 0, 2))
        lead, size = self.num_layers * (1 + self.bidirectional), self.hidden_size
        checked = as_states(name, names, states, x, (lead, x.shape[1], size) if has_batch else (lead, size))
        if checked is not None and not has_batch:
            checked = tuple(reshape(state, (lead, 1, size)) for state in checked)
        y, final = self._over_time(cells, x, checked)
        if has_batch:
            return permute(y, (1, 0, 2)) if self.batch_first else y, final
        return reshape(y, (y.shape[0], y.shape[2])), tuple(reshape(state, (lead, size)) for state in final)

    def _over_time(
        self, cells: Sequence[Sequence[Step]], x: Tensor, states: State | None
    ) -> tuple[Tensor, State]:  # fmt: skip
        """x (T, N, in) and initial states (L·D, N, H) each -> outputs (T, N, D·H) and final states."""
        initial: Iterator[State | None] = iter([None] * sum(map(len, cells)))
        if states is not None:
            initial = zip(*(split(state, 0) for state in states), strict=True)
        final = []
        dropout = check.number(type(self).__name__, "dropout", self.dropout, least=0, most=1)  # it may have changed
        for i, layer in enumerate(cells):
            if i and dropout:
                x = host_dropout(x, dropout, self.training, batch_axis=1)
            outputs = []
            for backwards, cell in enumerate(layer):
                y, state = run_direction(cell, x, next(initial), bool(backwards))
                outputs.append(y)
                final.append(state)
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, 2)
        return x, tuple(stack(parts, 0) for parts in zip(*final, strict=True))

    def extra_repr(self) -> str:
        options = (f"{name}={getattr(self, name)}" for name in ("batch_first", "dropout", "bidirectional"))
        shown = (text for text in options if not text.endswith(("=False", "=0.0")))
        return ", ".join([f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}", *shown])


def run_direction(
    cell: Step, x: Tensor, state: State | None, backwards: bool, active: Sequence[Tensor] | None = None
) -> tuple[Tensor, State]:
    """Run one cell over x (T, N, in): its hidden states (T, N, H) and its final state.

    The input of all steps is multiplied by W_ih at once, since that product needs no hidden state. Sequences of several
    lengths have masks `active` (N, 1), one for each step: the others keep their `state`, and yield zeros.
    """
    steps = split(cell.project_input(x), 0).tuple()
    outputs = []
    for i in reversed(range(len(steps))) if backwards else range(len(steps)):
        before, state = state, cell.step(steps[i], state)
        y = state[0]
        if active is not None:
            assert before is not None
            y = where(active[i], y, 0)
            state = tuple(where(active[i], *pair) for pair in zip(state, before, strict=True))
        outputs.append(y)
    assert state is not None
    return stack(outputs[::-1] if backwards else outputs, 0), state


# ---- states as arguments ---------------------------------------------------------------------------------------------


def as_states(
    op: str, names: Sequence[str], states: Sequence[TensorLike] | None, x: Tensor, shape: tuple[int, ...]
) -> State | None:
    """States, called `names`, as tensors of `shape` in the dtype of x; None if there are none."""
    if states is None:
        return None
    result = []
    for name, value in zip(names, states, strict=True):
        state = tensor(op, value)
        if state.shape != shape:
            raise ValueError(f"{op}: {name} must have shape {shape}, but got {state.shape}")
        check.floats(op, **{name: state})
        check.floats(op, **{"x": x, name: state})
        result.append(state)
    return tuple(result)
