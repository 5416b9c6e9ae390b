"""A table of a model: its modules, their outputs, parameters and multiply-adds, and the memory of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

from needle import check
from needle.autograd import Tensor, TensorTuple
from needle.backend import DTypeLike, default_device, get_rng_state, is_writable, real_dtype, root_of, set_rng_state
from needle.grad_mode import enable_grad, watch
from needle.graph import Op, Value, find_topo_sort
from needle.nn import Module, Parameter
from needle.ops.conv import Correlate, CorrelateTranspose, CorrelateWeight, RectifiedCorrelate
from needle.ops.linalg import MatMul
from needle.ops.linear import Linear, RectifiedLinear

__all__ = ["Layer", "Memory", "Summary", "summary"]

Shape: TypeAlias = Any  # the sizes of a tensor; for several results a tuple of them, None for what is no tensor


class Layer(NamedTuple):
    """A row of the table: what one module holds and computes itself, without its children."""

    name: str  # dotted; empty for the model
    type: str
    output: Shape  # of its first call
    parameters: int
    macs: int  # multiply-adds of all calls
    calls: int


class Memory(NamedTuple):
    """Bytes that a step of training holds."""

    parameters: int
    buffers: int
    gradients: int  # of the parameters that require one
    activations: int  # what the graph keeps between forward and backward: inputs and results of ops, masks, indices

    @property
    def total(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Summary:
    """What `summary` found; printed, it is the table."""

    layers: list[Layer]
    parameters: int  # elements of all Parameters, each counted once
    trainable: int  # of those that require a gradient
    buffers: int
    macs: int  # multiply-adds of one forward pass
    memory: Memory

    def __str__(self) -> str:
        head = ("layer", "type", "output", "parameters", "multiply-adds")
        rows = [
            (
                layer.name or "(model)",
                layer.type + f" x {layer.calls}" * (layer.calls > 1),
                str(layer.output) if layer.calls else "not called",
                f"{layer.parameters:,}" * (layer.parameters > 0),
                f"{layer.macs:,}" * (layer.macs > 0),
            )
            for layer in self.layers
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.macs:,}")
        widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]
        rule = "─" * (sum(widths) + 2 * len(widths) - 2)
        lines = [_line(row, widths) for row in (head, *rows, total)]
        parts = ", ".join(f"{name} {_megabytes(size)}" for name, size in self.memory._asdict().items())
        return "\n".join(
            [
                lines[0],
                rule,
                *lines[1:-1],
                rule,
                lines[-1],
                f"trainable {self.trainable:,}, frozen {self.parameters - self.trainable:,}, buffers {self.buffers:,}",
                f"memory of a training step {_megabytes(self.memory.total)}: {parts}",
            ]
        )

    __repr__ = __str__


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Texts to the left, the two columns of numbers to the right."""
    placed = [cell.rjust(n) if i > 2 else cell.ljust(n) for i, (cell, n) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(placed).rstrip()


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"


# Multiply-adds of an op from the shapes of its result y and its inputs. All other ops count nothing.
MACS: dict[type[Op], Callable[..., int]] = {
    MatMul: lambda y, a, b: math.prod(y) * a[-1],
    Linear: lambda y, x, w, *bias: math.prod(y) * x[-1],
    RectifiedLinear: lambda y, x, w, *bias: math.prod(y) * x[-1],
    Correlate: lambda y, x, w, *bias: math.prod(y) * math.prod(w[1:]),
    RectifiedCorrelate: lambda y, x, w, *bias: math.prod(y) * math.prod(w[1:]),
    CorrelateTranspose: lambda x, y, w, *bias: math.prod(y) * math.prod(w[1:]),
    CorrelateWeight: lambda w, x, y: math.prod(y) * math.prod(w[1:]),
}


def summary(model: Module, *inputs: Any, dtype: DTypeLike | None = None) -> Summary:
    """Run `model` and count: its layers, output shapes, parameters, multiply-adds, and the memory of a step.

    Each of `inputs` is a shape with its batch axis, such as (1, 3, 32, 32), or an example: a tensor, or anything else
    that the model takes, such as a state. Shapes become ones of `dtype`, by default that of the first parameter;
    integers, for embeddings, become zeros.

    The model runs twice, with hooks for the layers and without for the memory, in the mode it is in. It is as before
    afterwards: modes, running statistics, gradients, hooks, and the random stream, also if it raises. Each module
    counts what it does itself, so that columns add up; parameters and modules that are shared count once.

    Multiply-adds are those of one forward pass, for this batch: of matrix products and convolutions, with the taps that
    read padding. They are half of the floating-point operations that `torch.utils.flop_counter` counts.

    Memory is in bytes. A step of training holds parameters, buffers, the gradients of parameters that require one, and
    what the graph keeps for backward. Neither what it needs on the way, for columns of convolutions and gradients of
    results, nor the state of an optimizer is counted: on the CPU, the peak of forward and backward was 0.9 to 2.3 times
    the total, the most for LeNet, whose columns are larger than its activations.

    Raises TypeError if `model` is no Module or an input is neither a shape nor an example, ValueError without inputs or
    for negative sizes, and what the model raises.

    >>> from needle import nn
    >>> print(summary(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)), (2, 1, 8, 8)))
    layer    type        output        parameters  multiply-adds
    ────────────────────────────────────────────────────────────
    (model)  Sequential  (2, 10)
    0        Conv2d      (2, 4, 6, 6)          40          2,592
    1        ReLU        (2, 4, 6, 6)
    2        Flatten     (2, 144)
    3        Linear      (2, 10)            1,450          2,880
    ────────────────────────────────────────────────────────────
    total                                   1,490          5,472
    trainable 1,490, frozen 0, buffers 0
    memory of a training step 0.01 MiB: parameters 0.01 MiB, buffers 0.00 MiB, gradients 0.01 MiB, activations 0.00 MiB
    """
    check.instance("summary", "model", model, Module)
    if not inputs:
        raise ValueError("summary: inputs must be at least one shape or example, but got none")
    parameters, buffers = model.parameters(), model.buffers()
    device = next((tensor.device for tensor in (*parameters, *buffers)), default_device())
    floating = next((p.dtype for p in parameters if p.dtype.kind == "f"), "float32")
    kind = real_dtype("summary", floating if dtype is None else dtype)
    args = [_example(entry, device, kind) for entry in inputs]
    count = _Count(model)
    with _untouched(model), enable_grad():
        with watch(count), count.hooks():
            model(*args)
        activations = _kept(_tensors(model(*args)), [*parameters, *buffers])  # with hooks, Sequential reorders nothing
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return Summary(
        layers=count.layers(),
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in trainable),
        buffers=sum(b.size for b in buffers),
        macs=sum(count.macs.values()),
        memory=Memory(_bytes(parameters), _bytes(buffers), _bytes(trainable), activations),
    )


def _example(entry: Any, device: Any, dtype: Any) -> Any:
    """An argument of the model: ones, or zeros of integers, for a shape; anything else as it is."""
    if isinstance(entry, Integral) or (isinstance(entry, (tuple, list)) and entry and all(map(_is_shape, entry))):
        raise TypeError(
            f"summary: each of inputs must be a shape with a batch axis, or an example, but got {entry!r}; "
            "several shapes are several arguments"
        )
    if not _is_shape(entry):
        return entry
    shape = tuple(check.integer("summary", "a size", n, least=0) for n in entry)
    return Tensor.make_const(device.filled(shape, 1 if dtype.kind == "f" else 0, dtype))


def _is_shape(entry: Any) -> bool:
    return isinstance(entry, (tuple, list)) and all(isinstance(n, Integral) for n in entry)


class _Count:
    """Sees the ops and calls of a model, and counts by module."""

    def __init__(self, model: Module) -> None:
        self.modules = {module: name for name, module in model.named_modules()}
        self.macs = dict.fromkeys(self.modules, 0)
        self.calls = dict.fromkeys(self.modules, 0)
        self.outputs: dict[Module, Shape] = {}
        self.running: list[Module] = [model]  # the modules that have been called and have not returned

    def made(self, value: Any, op: Op, inputs: Sequence[Any]) -> None:
        if type(op) in MACS:
            self.macs[self.running[-1]] += MACS[type(op)](value.shape, *(x.shape for x in inputs))

    def passed(self, node: Any, grad: Any, x_grads: Any) -> None:
        """The model may differentiate; that belongs to its result."""

    def enter(self, module: Module, args: Any) -> None:
        self.running.append(module)

    def leave(self, module: Module, args: Any, output: Any) -> None:
        self.running.pop()
        self.calls[module] += 1
        self.outputs.setdefault(module, _shape(output))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """See the calls of the modules until the block ends; an error tells in which module it came."""
        handles = [m.register_forward_pre_hook(self.enter, prepend=True) for m in self.modules]
        handles += [m.register_forward_hook(self.leave) for m in self.modules]
        try:
            yield
        except Exception as error:
            module = self.running[-1]
            error.add_note(f"summary: raised in {self.modules[module] or 'the model'}, a {type(module).__name__}")
            raise
        finally:
            for handle in handles:
                handle.remove()

    def layers(self) -> list[Layer]:
        counted: set[Parameter] = set()
        rows = []
        for module, name in self.modules.items():
            own = {*module.parameters(recurse=False)} - counted
            counted |= own
            size, output = sum(p.size for p in own), self.outputs.get(module)
            rows.append(Layer(name, type(module).__name__, output, size, self.macs[module], self.calls[module]))
        return rows


@contextmanager
def _untouched(model: Module) -> Iterator[None]:
    """Give modules, their tensors and the random stream back as they were."""
    stream = get_rng_state()
    attributes = [(vars(module), dict(vars(module))) for _, module in model.named_modules()]
    tensors = [(tensor, *_snapshot(tensor)) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for now, before in attributes:
            now.clear()
            now.update(before)
        for tensor, array, values, counter, version, grad in tensors:
            if values is not None:
                array[...] = values
            tensor.array = tensor.spec = array
            tensor.counter, counter.version, tensor.grad = counter, version, grad
        set_rng_state(stream)


def _snapshot(tensor: Tensor) -> tuple[Any, ...]:
    """All that a forward pass may change of a tensor: Parameters keep their values, buffers may be written to."""
    array, counter = tensor.array, tensor.version_counter()
    values = None if isinstance(tensor, Parameter) or not is_writable(array) else array.copy()
    return array, values, counter, counter.version, tensor.grad


# ---- shapes and memory -----------------------------------------------------------------------------------------------


def _shape(output: Any) -> Shape:
    """The shape of a tensor, or of all tensors in tuples, lists and dicts."""
    if isinstance(output, (tuple, list, TensorTuple)):
        return tuple(map(_shape, output))
    if isinstance(output, dict):
        return {key: _shape(entry) for key, entry in output.items()}
    return output.shape if isinstance(output, Tensor) else None


def _tensors(output: Any) -> Iterator[Value]:
    """The values in a result."""
    if isinstance(output, Value):
        yield output
    elif isinstance(output, (tuple, list, dict)):
        for entry in output.values() if isinstance(output, dict) else output:
            yield from _tensors(entry)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.array.nbytes for tensor in tensors)


def _kept(results: Iterable[Value], state: Iterable[Tensor]) -> int:
    """The bytes of memory, each counted once, that a graph keeps without those of the model's state."""
    roots: dict[int, int] = {}
    for value in find_topo_sort(results):
        for array in value.array if isinstance(value.array, tuple) else (value.array,):
            root = root_of(array)
            roots[id(root)] = getattr(root, "nbytes", array.nbytes)
    for tensor in state:
        roots.pop(id(root_of(tensor.array)), None)
    return sum(roots.values())
