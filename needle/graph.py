"""Reverse-mode differentiation: ops, the values they produce, and the walk from a result back to its leaves.

A value remembers the op and the inputs it came from. `walk` sorts that graph topologically, then asks each op, last to
first, for the gradients of its inputs. Gradients are built from ops, so they can be differentiated again. Nothing here
knows what a tensor is: `needle.autograd` defines the values, `needle.ops` the ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Self

from needle.backend import Device, HostScalar, device_of, lone_types
from needle.grad_mode import grad_mode, mode
from needle.kernels import in_memory_order
from needle.version_counter import VersionCounter

__all__ = [
    "Op",
    "Spec",
    "Unknown",
    "Value",
    "check_one_device",
    "find_topo_sort",
    "run",
    "run_gradient",
    "tapped",
    "walk",
]

Array = Any  # a raw array of NumPy or CuPy; the value of a tuple is a tuple of them


class Spec(NamedTuple):
    """Shape and dtype of a tensor: all that is known of it without its values."""

    shape: tuple[int, ...]
    dtype: Any


class Unknown(ValueError):
    """Values are asked for of a tensor that has none, since it belongs to an outline (`needle.outline`)."""


class Op:
    """A function of raw arrays and its derivative. An op is its parameters and nothing else.

    `compute` sees raw arrays and stores nothing on `self`. `gradient` sees values and calls ops only, so every order of
    derivative exists. `compute_gradient` is an optional fused form of `gradient` on raw arrays; `walk` uses it when no
    graph of the gradients is recorded.
    """

    differentiable = True  # False: results are constants
    saves_output = False  # True: `gradient` reads the result's values
    is_view = False  # True: the result may alias the first input
    is_elementwise = False  # True: `compute` may see the axes of all arrays in another order
    device: Device | None = None  # device of the result, if it differs from the inputs'

    @property
    def saved_inputs(self) -> Sequence[int] | None:  # most ops override it by a class attribute
        """Positions of the inputs whose values `gradient` reads; None: all."""
        return None

    def compute(self, *arrays: Array) -> Array:
        """Return the result's raw array, or a tuple of arrays for an op that produces a tuple."""
        raise NotImplementedError(f"{type(self).__name__}: compute is not defined")

    def infer(self, *specs: Any) -> Any:
        """Return the Spec of the result from the inputs' Specs, or None if it depends on their values."""
        return None

    def gradient(self, out_grad: Any, node: Any) -> Any:
        """Return one gradient per input of `node`: a value of the input's shape, or None if none flows there.

        A single gradient need not be a tuple. For an input that is a tuple, a dict from position to gradient will do.
        """
        raise NotImplementedError(f"{type(self).__name__}: gradient is not defined")

    # (out_grad, output, *inputs, needed=[bool per input]) -> one raw array per input, None if it is not needed
    compute_gradient: Callable[..., Any] | None = None

    def gradient_as_tuple(self, out_grad: Any, node: Any) -> tuple[Any, ...]:
        """Return `gradient` as a tuple with one entry per input."""
        grads = self.gradient(out_grad, node)
        return grads if isinstance(grads, tuple) else (grads,)

    def __init_subclass__(cls) -> None:
        names = {"gradient", "gradient_as_tuple", "compute_gradient"}
        if "compute_gradient" not in next(vars(base) for base in cls.__mro__ if names & vars(base).keys()):
            cls.compute_gradient = None  # the inherited one is the fused form of another gradient
        if hasattr(cls, "reads_inputs") or hasattr(cls, "reads_output"):  # ignored, they let wrong gradients pass
            raise TypeError(f"{cls.__name__}: an op must define saved_inputs, saves_output, but got their former names")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)  # 1 == 1.0, but they differ as parameters

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Value:
    """A node of the graph: raw data (`array`) with the op and inputs it came from (None and () for a leaf)."""

    __slots__ = (
        "__weakref__", "array", "counter", "grad", "hooks", "inputs", "op", "place", "requires_grad", "spec", "version",
    )  # fmt: skip
    array: Array
    spec: Any  # has shape and dtype: `array` itself, or a Spec if there is none; faster to ask than the properties
    op: Op | None
    inputs: tuple[Value, ...]
    requires_grad: bool
    grad: Any
    plain_class: ClassVar[type[Any]]  # the class of constants
    version: int  # VersionCounter.clock at creation
    counter: VersionCounter  # unset until another value aliases the buffer, or it is written to
    hooks: Any  # unset without any: see needle.ops.hooks
    hooks_exist: ClassVar[bool] = False  # whether this process has made any: asking for an unset slot takes a while
    place: Any  # unset unless needle.anomaly has noted where the op was called

    @classmethod
    def make_leaf(cls, array: Array, requires_grad: bool = False) -> Self:
        """A leaf on the memory of a raw array; a NumPy scalar becomes a 0-d array."""
        self = cls.__new__(cls)
        self.array = self.spec = as_array(array)
        self.op, self.inputs, self.grad = None, (), None
        self.requires_grad, self.version = requires_grad, VersionCounter.clock
        return self

    def accumulate_grad(self, partial: Any, grad: Any, op: Op) -> Any:
        """Return `partial`, the gradient gathered so far (None at first), plus one more that `op` returned."""
        raise NotImplementedError(f"{type(self).__name__}: accumulate_grad is not defined")

    def fused_gradients(self, out_grad: Value, needed: Sequence[bool]) -> Sequence[Value | None]:
        """The gradients of the inputs as constants, by the op's `compute_gradient`."""
        arrays = run_gradient(self.op, out_grad.array, self.array, [x.array for x in self.inputs], needed)
        return [None if a is None else x.plain_class.make_leaf(a) for x, a in zip(self.inputs, arrays, strict=True)]

    def finish_grad(self, partial: Any) -> Any:
        """Return the gradient of this value once all its uses have contributed, as its hooks leave it."""
        return self.hooks(self, partial) if Value.hooks_exist and hasattr(self, "hooks") else partial

    def own_grad(self, grad: Any, taken: dict[int, Array]) -> Any:
        """Return `grad`, or a copy if its memory is among `taken` (by id) or not writable: users write into `.grad`."""
        return grad

    @property
    def device(self) -> Device:
        return device_of(self.array)

    def is_leaf(self) -> bool:
        """Whether this value has no recorded op."""
        return self.op is None

    def detach(self) -> Self:
        """The same data outside the graph; the memory is shared."""
        leaf: Self = self.plain_class.make_leaf(self.array)
        leaf.counter = self.version_counter()
        return leaf

    def version_counter(self) -> VersionCounter:
        """The counter of all values on this memory."""
        if not hasattr(self, "counter"):
            VersionCounter.give_to(self)
        return self.counter

    def bump_version(self) -> None:
        """Announce a write to `array`, so that backward can refuse stale values."""
        self.version_counter().bump()


@contextmanager
def tapped(
    take: Callable[[Value, Array], Array], put: Callable[[Value, Array], None], set_grad: Callable[[Value, Any], None]
) -> Iterator[None]:
    """Let `take` replace each array that is taken out of a value, and `put` see each one put in, until the block ends.

    `set_grad` sees each gradient before it is set. In all threads: the functions must know theirs. One block at a time.
    """
    values: Any = Value
    slot, grad_slot = values.array, values.grad

    def take_out(value: Value) -> Array:
        return take(value, slot.__get__(value))

    def put_in(value: Value, array: Array) -> None:
        slot.__set__(value, array)
        put(value, array)

    def put_grad(value: Value, grad: Any) -> None:
        set_grad(value, grad)
        grad_slot.__set__(value, grad)

    try:
        values.array = property(take_out, put_in, slot.__delete__)
        values.grad = property(grad_slot.__get__, put_grad, grad_slot.__delete__)
        yield
    finally:
        values.array, values.grad = slot, grad_slot


def as_array(array: Array) -> Array:
    """An array, also where a NumPy ufunc returned a scalar instead of a 0-d array."""
    return device_of(array).asarray(array) if isinstance(array, HostScalar) else array


def run(op: Op, inputs: Sequence[Value]) -> Array:
    """Compute the raw result of `op`."""
    if len(inputs) == 2:  # all branches do the same; without lists, the two common ones save a third of the time
        first, second = inputs[0].array, inputs[1].array
        if type(first) is not type(second) or type(first) not in lone_types:
            array = _run_anywhere(op, inputs)
        else:
            array = op.compute(first, second)
    elif len(inputs) == 1:
        first = inputs[0].array
        is_plain = not op.is_elementwise or type(first) in lone_types
        array = op.compute(first) if is_plain else _run_anywhere(op, inputs)
    else:
        arrays = [x.array for x in inputs]
        types = set(map(type, arrays))
        array = op.compute(*arrays) if len(types) == 1 and types <= lone_types else _run_anywhere(op, inputs)
    return as_array(array) if isinstance(array, HostScalar) else array


def _run_anywhere(op: Op, inputs: Sequence[Value]) -> Array:
    """`run` of inputs that may be on several devices, or on one whose ufuncs lose the memory order."""
    if len(inputs) > 1:
        check_one_device(type(op).__name__, inputs)
    arrays = [x.array for x in inputs]
    if op.is_elementwise and not inputs[0].device.keeps_order:
        return in_memory_order(op.compute, arrays)
    return op.compute(*arrays)


def run_gradient(op: Any, out_grad: Array, output: Array, inputs: Sequence[Array], needed: Sequence[bool]) -> Any:
    """Call `op.compute_gradient`: a tuple of one raw array, or None, per input."""
    grads = op.compute_gradient(out_grad, output, *inputs, needed=needed)
    grads = grads if isinstance(grads, tuple) else (grads,)
    _check_count(op, grads, inputs)
    return grads


def _check_count(op: Op, grads: Sequence[Any], inputs: Sequence[Any]) -> None:
    if len(grads) != len(inputs):
        raise ValueError(
            f"backward: an op must return one gradient for each of its {len(inputs)} inputs, "
            f"but {op!r} returned {len(grads)}"
        )


def check_one_device(op: str, inputs: Sequence[Value]) -> None:
    """Raise TypeError if the inputs are on different devices."""
    device = inputs[0].device
    for x in inputs[1:]:
        if x.device is not device and x.device != device:
            raise TypeError(f"{op}: inputs must be on one device, but got {device} and {x.device}")


def find_topo_sort(nodes: Iterable[Value]) -> list[Value]:
    """Every value below `nodes` once, inputs before results: depth-first post-order, inputs left to right."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack: list[Any] = [*nodes][::-1]
    while stack:
        node = stack.pop()
        if node is None:  # all inputs of the value below it are in `order`
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            if node.inputs:
                stack += node, None
                stack += node.inputs[::-1]
            else:
                order.append(node)
    return order


def walk(
    output: Value,
    out_grad: Any,
    *,
    create_graph: bool,
    retain_graph: bool,
    accumulate: bool = False,
    found: dict[Value, Any] | None = None,
    takers: Mapping[Value, Callable[[Any, Any], None]] | None = None,
) -> None:
    """Set or add to `.grad` of every leaf below `output`, from the gradient of `output`, in reverse topological order.

    With `create_graph` the gradients are recorded; otherwise ops use their fused `compute_gradient` where they have
    one. Without `retain_graph` each node drops its inputs as soon as it is passed. Raises RuntimeError before any
    work if a node was released or a saved value was changed in place.

    With `found`, no `.grad` is touched: the gradients of its keys, any values, become its values, and no others are
    computed. The gradients of the keys of `takers` go to these functions as soon as they are complete, with the key,
    not to its hooks and its `.grad`.
    """
    order = find_topo_sort([output])
    leading = {*(found or ())}
    clock, watchers = VersionCounter.clock, mode.watchers
    for node in order:
        if node.op is not None and (node.version != clock or not node.inputs):
            _check_intact(node, node.op)
        if leading and not leading.isdisjoint(node.inputs):
            leading.add(node)
    grads = {output: out_grad}
    taken: dict[int, Array] = {}
    output.own_grad(out_grad, taken)  # it is the caller's
    del out_grad  # each gradient is freed as soon as it has been used
    with grad_mode(create_graph):
        while order:
            node = order.pop()
            grad = grads.pop(node, None)
            if grad is None or (leading and node not in leading):
                continue
            op, inputs = node.op, node.inputs
            if takers and node in takers:
                takers[node](node, grad)
                if op is None:
                    continue
            else:
                grad = node.finish_grad(grad)
            if found is not None and node in found:
                found[node] = grad
            if op is None:
                if found is None:
                    adds = accumulate and node.grad is not None
                    node.grad = node.grad + grad if adds else node.own_grad(grad, taken)
                continue
            if create_graph or op.compute_gradient is None:
                x_grads: Sequence[Any] = op.gradient_as_tuple(grad, node)
                _check_count(op, x_grads, inputs)
            else:
                x_grads = node.fused_gradients(grad, [x.requires_grad for x in inputs])
            for watcher in watchers:
                watcher.passed(node, grad, x_grads)
            for x, x_grad in zip(inputs, x_grads):  # noqa: B905 (`strict` doubles the time of zip)
                if x.requires_grad and x_grad is not None:
                    grads[x] = x.accumulate_grad(grads.get(x), x_grad, op)
            if not retain_graph:
                node.inputs = ()


def _check_intact(node: Value, op: Op) -> None:
    """Raise RuntimeError if `node` was released, or a value its gradient reads was written to after the op ran."""
    if not node.inputs:
        raise RuntimeError(
            f"backward: the graph must exist, but an earlier backward released the result of {op!r}; "
            "pass retain_graph=True to that one"
        )
    positions = range(len(node.inputs)) if op.saved_inputs is None else op.saved_inputs
    saved = [(f"input {i}", node.inputs[i]) for i in positions]
    if op.saves_output:
        saved.append(("the result", node))
    for name, value in saved:
        if hasattr(value, "counter") and value.counter.version > node.version:
            raise RuntimeError(
                f"backward: values that a gradient needs must not change in place, but {name} of {op!r} with shape "
                f"{getattr(value, 'shape', '?')} did after the op ran"
            )
