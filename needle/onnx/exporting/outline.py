"""The outline of a forward pass: its ops from inputs to outputs, with shapes and dtypes; the inputs have no values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from needle.autograd import Tensor, TensorTuple
from needle.backend import HostArray, get_rng_state, set_rng_state, to_host
from needle.grad_mode import watch
from needle.graph import Op, Spec, Value
from needle.nn import Module
from needle.onnx.model import GraphModule
from needle.ops.copies import Clone
from needle.ops.hooks import PassThrough
from needle.ops.transfer import To
from needle.ops.tuples import MakeTensorTuple, TensorTupleGetItem
from needle.outline import Outlined, outline, outlined, spec_of

__all__ = ["Outline", "Step", "flat_tensors", "outline_of"]

REFUSAL = (
    "export: the forward pass must not read values that depend on an input (in a branch, by `.item()`, as a "
    "mask that selects, in a write), but it reads some computed from {!r}"
)
Change: TypeAlias = Callable[[Tensor], tuple[int, ...]]  # an input -> another shape


@dataclass(frozen=True)
class Step:
    """An op, the values that it reads, by number, and what it makes of them."""

    op: Op
    inputs: tuple[int, ...]
    spec: Any  # of the result; of a tuple, a tuple of them
    module: str  # the dotted name of the module that applied it


@dataclass
class Outline:
    """Values by number: inputs, tensors of the state and constants by what they are, others by the step that made them.

    Numbers come in an order in which the steps can run, the same for equal graphs.
    """

    inputs: dict[int, tuple[str, Spec]] = field(default_factory=dict)
    state: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    constants: dict[int, HostArray] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    outputs: list[tuple[str, int]] = field(default_factory=list)

    def spec(self, number: int) -> Any:
        """Shape and dtype of a value."""
        if number in self.steps:
            return self.steps[number].spec
        if number in self.inputs:
            return self.inputs[number][1]
        known = self.state[number][1] if number in self.state else self.constants[number]
        return Spec(known.shape, known.dtype)


def outline_of(model: Module, args: Sequence[Any], change: Change | None = None) -> Outline:
    """The outline of `model(*args)` in evaluation mode; its inputs are the tensors in `args`, within lists too."""
    record = _Record()

    def as_input(name: str, x: Tensor) -> Tensor:
        value = outlined(x.shape if change is None else change(x), x.dtype, x.device, REFUSAL.format(name))
        record.inputs[id(value)] = name, value
        return value

    with outline(), _evaluation(model), _unchanged(model), record.modules(model), watch(record):
        names = _argument_names(model, len(args))
        result = model(*(_mapped(name, arg, as_input) for name, arg in zip(names, args, strict=True)))
        outputs = list(flat_tensors("output", result))
        if not outputs:
            raise TypeError("export: what the model returns must be of tensors, but it returns none")
        if isinstance(model, GraphModule):
            outputs = list(zip(model.outputs, [value for _, value in outputs], strict=True))
        return record.outline(outputs, model)


class _Record:
    """Sees the ops of a forward pass, and in which modules they are applied."""

    def __init__(self) -> None:
        self.ops: dict[int, tuple[Op, Sequence[Value], str]] = {}
        self.values: list[Value] = []  # alive, so that their ids are theirs
        self.arrays: dict[int, tuple[Any, Value]] = {}  # and the first value with each
        self.inputs: dict[int, tuple[str, Tensor]] = {}
        self.running = [""]

    def made(self, value: Value, op: Op, inputs: Sequence[Value]) -> None:
        self.ops[id(value)] = op, inputs, self.running[-1]
        self.values.append(value)
        for known in (*inputs, value):
            if not isinstance(known, Outlined):
                self.arrays.setdefault(id(known.array), (known.array, known))

    def passed(self, node: Any, grad: Any, x_grads: Any) -> None:
        """No graph is recorded, so nothing passes."""

    @contextmanager
    def modules(self, model: Module) -> Iterator[None]:
        """See the calls of the modules until the block ends."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                enter, leave = self._calls(name)
                stack.enter_context(module.register_forward_pre_hook(enter, prepend=True))
                stack.enter_context(module.register_forward_hook(leave))
            yield

    def _calls(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        return lambda module, args: self.running.append(name), lambda module, args, result: self.running.__delitem__(-1)

    def inputs_of(self, value: Value) -> Sequence[Value]:
        """The values that a value was made of; itself for a value that is only another name of its input."""
        return [self.origin(x) for x in self.ops[id(value)][1]] if id(value) in self.ops else ()

    def origin(self, value: Value) -> Value:
        """The value that this one is a copy or an alias of."""
        if id(value) not in self.ops and not isinstance(value, Outlined):  # a detached value has the array of another
            _, value = self.arrays.get(id(value.array), (None, value))
        while id(value) in self.ops:
            op, inputs, _ = self.ops[id(value)]
            if isinstance(op, (Clone, To)):
                value = inputs[0]
            elif isinstance(op, TensorTupleGetItem) and id(inputs[0]) in self.ops:
                tuple_op, parts, _ = self.ops[id(inputs[0])]
                if not isinstance(tuple_op, (MakeTensorTuple, PassThrough)):
                    break
                value = parts[op.index]
            else:
                break
        return value

    def outline(self, outputs: Sequence[tuple[str, Tensor]], model: Module) -> Outline:
        """The part of the record that the outputs need. What depends on no input and no state becomes a constant."""
        state: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in model.state_dict(copy=False).items():
            state.setdefault(id(tensor.array), (name, tensor))
        results = [(name, self.origin(value)) for name, value in outputs]
        varies: dict[int, bool] = {}
        for value in self._sorted([value for _, value in results], lambda value: True):
            if id(value) in self.ops:
                varies[id(value)] = any(varies[id(x)] for x in self.inputs_of(value))
            else:
                varies[id(value)] = id(value) in self.inputs or id(value.array) in state
        found = Outline()
        inputs = [value for _, value in self.inputs.values()]
        needed = self._sorted([*inputs, *(value for _, value in results)], lambda value: varies[id(value)])
        numbers = {id(value): number for number, value in enumerate(needed)}
        for number, value in enumerate(needed):
            if id(value) in varies and not varies[id(value)]:
                found.constants[number] = to_host(value.array)
            elif id(value) in self.inputs:
                found.inputs[number] = self.inputs[id(value)][0], spec_of(value)
            elif id(value) not in self.ops:
                found.state[number] = state[id(value.array)]
            else:
                op, _, module = self.ops[id(value)]
                read = tuple(numbers[id(x)] for x in self.inputs_of(value))
                found.steps[number] = Step(op, read, spec_of(value), module)
        places = {name: place for place, (name, _) in enumerate(state.values())}
        found.state = dict(sorted(found.state.items(), key=lambda entry: places[entry[1][0]]))
        found.outputs = [(name, numbers[id(value)]) for name, value in results]
        return found

    def _sorted(self, values: Sequence[Value], goes_on: Callable[[Value], bool]) -> list[Value]:
        """Every value below `values` once, inputs first, as far as `goes_on`; inputs of the model are ends."""
        order, seen, stack = [], set(), [(value, False) for value in reversed(values)]
        while stack:
            value, is_done = stack.pop()
            if is_done:
                order.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                stack.append((value, True))
                if id(value) not in self.inputs and goes_on(value):
                    stack += [(x, False) for x in reversed(self.inputs_of(value))]
        return order


@contextmanager
def _evaluation(model: Module) -> Iterator[None]:
    """Evaluation mode until the block ends; then modules have the attributes that they had before."""
    before = [(vars(module), dict(vars(module))) for _, module in model.named_modules()]
    try:
        model.eval()
        yield
    finally:
        for attributes, values in before:
            attributes.clear()
            attributes.update(values)


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Put the random stream and the arrays of the state back after the block, and refuse it if it has changed them."""
    stream = get_rng_state()
    state = [(tensor, tensor.array) for tensor in (*model.parameters(), *model.buffers())]
    changed = False
    try:
        yield
    finally:
        draws = _position(get_rng_state()) != _position(stream)
        set_rng_state(stream)
        for tensor, array in state:
            if tensor.array is not array:
                changed = True
                tensor.replace_array(array)
    if draws:
        raise ValueError(
            "export: the forward pass must be the same each time, but it draws random numbers in evaluation mode"
        )
    if changed:
        raise ValueError("export: the forward pass must be the same each time, but it changes the state of the model")


def _position(stream: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells two states of the random stream apart."""
    return stream["state"]["key"].tobytes(), stream["state"]["pos"], stream["has_gauss"], stream["gauss"]


def _argument_names(model: Module, count: int) -> list[str]:
    """The names of the positional arguments of `forward`, or of the inputs of a model that was loaded."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    if isinstance(model, GraphModule):
        names = list(model.inputs)
    return [names[i] if i < len(names) else f"input_{i}" for i in range(count)]


def _mapped(name: str, arg: Any, function: Callable[[str, Tensor], Tensor]) -> Any:
    """An argument with `function` applied to each tensor in it."""
    if isinstance(arg, Tensor):
        return function(name, arg)
    if isinstance(arg, dict):
        return {key: _mapped(f"{name}_{key}", entry, function) for key, entry in arg.items()}
    if isinstance(arg, (list, tuple)):
        entries = [_mapped(f"{name}_{i}", entry, function) for i, entry in enumerate(arg)]
        return entries if isinstance(arg, list) else tuple(entries)
    return arg


def flat_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in tuples, lists and dicts, by names made of their places; None counts as nothing."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from flat_tensors(f"{name}_{key}", entry)
    elif isinstance(value, (list, tuple, TensorTuple)):
        for i, entry in enumerate(value):
            yield from flat_tensors(f"{name}_{i}", entry)
    elif value is not None:
        raise TypeError(f"export: what the model returns must be of tensors, but {name} is {type(value).__name__}")
