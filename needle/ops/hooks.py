"""Hooks: functions that see gradients on their way back, and may replace them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from needle import check
from needle.autograd import Tensor, TensorTuple, TensorTupleOp
from needle.backend import refuse
from needle.graph import Value, check_one_device
from needle.ops.base import Array, Gradients
from needle.ops.tuples import TensorTupleGetItem

__all__ = ["HookHandle", "PassThrough", "add_hook", "pass_through", "register_hook"]

Seen: TypeAlias = Sequence[Tensor | None]


class HookHandle:
    """What registering a hook returns: `remove()` removes the hook, and so does the end of a `with` block."""

    def __init__(self, hooks: OrderedDict[int, Any], key: int) -> None:
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        """Remove the hook; nothing happens if it was removed before."""
        self._hooks.pop(self._key, None)
        self._hooks = OrderedDict()  # the next hook may get the same key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def add_hook(op: str, hooks: OrderedDict[int, Any], function: Any, entry: Any = None) -> HookHandle:
    """Append `entry`, by default the function itself, to hooks that run in order."""
    if not callable(function):
        raise TypeError(f"{op}: hook must be callable, but got {type(function).__name__}")
    key = max(hooks, default=-1) + 1
    hooks[key] = function if entry is None else entry
    return HookHandle(hooks, key)


class GradientHooks(OrderedDict[int, Any]):
    """The hooks of a tensor."""

    def __call__(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of x as its hooks leave it."""
        if self:
            refuse("register_hook", "a hook of a tensor")
        for hook in tuple(self.values()):
            changed = hook(grad)
            if changed is not None:
                check.instance("backward", "what a hook returns", changed, Tensor)
                check_one_device("backward", (x, changed))
                grad = x.accumulate_grad(None, changed, hook)
        return grad


def register_hook(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
    """Call `hook(grad)` whenever backward has computed the gradient of x, a tensor of the shape of x.

    What the hook returns, unless None, takes the place of the gradient, for `.grad` and for all that x was computed
    from. Several hooks run in order. `remove()` of the handle that is returned, or the end of a `with` block, removes
    the hook. Copies of x have no hooks.

    Raises `RuntimeError` if x does not require a gradient, `TypeError` if `hook` is not callable. Backward raises
    `TypeError` if a hook returns anything but a tensor on the device of x or None, `RuntimeError` for another shape.

    >>> x = Tensor([1.0, 2.0])
    >>> with x.register_hook(lambda grad: grad * 10):
    ...     (x * x).sum().backward(create_graph=False)
    >>> x.grad
    Tensor([20. 40.])
    """
    if not x.requires_grad:
        raise RuntimeError(f"register_hook: x must require grad, but got a constant of shape {x.shape}")
    if not hasattr(x, "hooks"):
        x.hooks = GradientHooks()
        Value.hooks_exist = True
    return add_hook("register_hook", x.hooks, hook)


class PassThrough(TensorTupleOp):
    """Tensors as they are; `function` sees their gradients together, and returns those that flow on."""

    saved_inputs = ()

    def __init__(self, function: Callable[[Seen], Seen]) -> None:
        self.function = function

    def compute(self, *arrays: Array) -> tuple[Array, ...]:
        return arrays

    def infer(self, *specs: Any) -> Any:
        return specs

    def gradient(self, out_grad: TensorTuple, node: Any) -> Gradients:
        return tuple(self.function(out_grad.tuple()))


def pass_through(function: Callable[[Seen], Seen], values: Sequence[Any]) -> list[Any] | None:
    """`values` with each floating tensor that requires a gradient replaced by a view whose gradient `function` sees.

    `function` gets one gradient per value, None for all others. The result is None if no gradient can flow.
    """
    tensors = [(i, value) for i, value in enumerate(values) if isinstance(value, Tensor)]
    places = [i for i, x in tensors if x.requires_grad and x.dtype.kind == "f"]
    if not places:
        return None

    def see(grads: Seen) -> Seen:
        every: list[Tensor | None] = [None] * len(values)
        for i, grad in zip(places, grads, strict=True):
            every[i] = grad
        seen = function(every)
        return [seen[i] for i in places]

    together = PassThrough(see)(*(values[i] for i in places))
    if not together.requires_grad:
        return None
    passed = list(values)
    for position, i in enumerate(places):
        passed[i] = TensorTupleGetItem(position)(together)
        passed[i].counter = values[i].version_counter()  # it is a view of that memory, not of the tuple's
    return passed
