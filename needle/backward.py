"""The walk that differentiates a graph, from its last value to its leaves; it knows values, but no op."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from needle.grad_mode import grad_mode

if TYPE_CHECKING:
    from needle.autograd import Op, Tensor, Value


class Memory:
    """What values that share memory share: when it last changed in place, counted in changes of the whole process.

    `readers` are the values that were deferred when they were made of this memory.
    """

    __slots__ = ("changed", "readers")
    now = 0

    def __init__(self) -> None:
        self.changed = 0
        self.readers: WeakSet[Value] | None = None

    def add_pending(self, value: Value) -> None:
        """Note a deferred value that is to be computed from this memory."""
        self.readers = self.readers or WeakSet()
        self.readers.add(value)

    def compute_pending(self) -> None:
        """Compute what is to be computed from this memory as it is now."""
        for reader in list(self.readers or ()):
            with suppress(Exception):  # one that fails tells so when it is asked for itself
                reader.array  # noqa: B018
        self.readers = None

    def bump_version(self) -> None:
        """Note that a change comes."""
        self.compute_pending()
        Memory.now += 1
        self.changed = Memory.now


def find_topo_sort(nodes: Iterable[Value]) -> list[Value]:
    """Every value below `nodes` once, inputs before results: post-order depth-first, inputs from left to right."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack: list[Any] = [*nodes][::-1]
    while stack:
        node = stack.pop()
        if node is None:  # the inputs of the value below it are done
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            if node.inputs:
                stack += node, None
                stack += node.inputs[::-1]
            else:
                order.append(node)
    return order


def compute_gradient_of_variables(
    output: Tensor, out_grad: Tensor | None = None, *, create_graph: bool = True, retain_graph: bool | None = None
) -> None:
    """Walk the graph below `output` backwards and set `.grad` of its leaves; see `Tensor.backward`."""
    seed = _seed(output, out_grad)
    order = find_topo_sort([output])
    now = Memory.now
    for node in order:
        if node.op is not None and (node.stamp != now or not node.inputs):
            _check_intact(node, node.op)
    release = not (create_graph if retain_graph is None else retain_graph)
    grads: dict[Value, Any] = {output: seed if create_graph else seed.detach()}
    with grad_mode(create_graph):
        while order:
            node = order.pop()
            if node not in grads:
                continue
            grad = node.finish_grad(grads.pop(node))
            op, inputs = node.op, node.inputs
            if op is None:
                node.grad = grad
                continue
            x_grads = op.gradient_as_tuple(grad, node)
            if len(x_grads) != len(inputs):
                raise ValueError(
                    f"backward: gradients must be one for each of {len(inputs)} inputs, but {op!r} gave {len(x_grads)}"
                )
            for x, x_grad in zip(inputs, x_grads):  # noqa: B905 (`strict` takes as long as all else that zip does)
                if x.requires_grad and x_grad is not None:
                    grads[x] = x.accumulate_grad(grads.get(x), x_grad, op)
            if release:
                node.inputs = ()


def _seed(output: Tensor, out_grad: Tensor | None) -> Tensor:
    """The gradient that backward starts from: `out_grad`, or ones."""
    if not output.requires_grad:
        raise RuntimeError(
            f"backward: the tensor must require grad, but this one of shape {output.shape} is a constant: "
            "none of its inputs requires grad, or it was computed under no_grad"
        )
    if out_grad is None:
        return output.make_const(output.device.xp.ones(output.shape, output.dtype))
    if not hasattr(out_grad, "requires_grad"):
        raise TypeError(f"backward: out_grad must be a Tensor, but got {type(out_grad).__name__}")
    if out_grad.shape != output.shape:
        raise ValueError(f"backward: out_grad must have shape {output.shape}, but got {out_grad.shape}")
    return out_grad.astype(output.dtype) if output.dtype.kind == "f" else out_grad


def _check_intact(node: Value, op: Op) -> None:
    """Refuse a result that was released, or whose gradient would read a value changed since it was computed."""
    if not node.inputs:
        raise RuntimeError(
            f"backward: the graph must be there still, but an earlier backward released the result of {op!r}; "
            "pass retain_graph=True to that one"
        )
    reads = op.reads_inputs
    read = range(len(node.inputs))[reads if isinstance(reads, slice) else slice(None if reads else 0)]
    for i in (*read, None) if op.reads_output else read:
        value = node if i is None else node.inputs[i]
        if hasattr(value, "memory") and value.memory.changed > node.stamp:
            name = "the result" if i is None else f"input {i}"
            raise RuntimeError(
                f"backward: values that a gradient needs must not change in place, but {name} of {op!r} with shape "
                f"{getattr(value, 'shape', '?')} did after the op ran"
            )
