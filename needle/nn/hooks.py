"""Hooks of modules: functions that see the arguments, the results and the gradients of calls, and may replace them."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

from needle import check
from needle.autograd import Tensor, TensorTuple
from needle.backend import depend, noting, refuse
from needle.grad_mode import is_grad_enabled
from needle.graph import check_one_device
from needle.ops.hooks import HookHandle, Seen, add_hook, pass_through

__all__ = ["Hooked", "depend_on"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@dataclass
class Hook:
    """A function and when it is called: "before" or "after" `forward`, or on the way "back"."""

    when: str
    function: Callable[..., Any]
    with_kwargs: bool = False


def entries_of(part: Any) -> list[Any]:
    """The values in a list or a dict."""
    return [*part.values()] if type(part) is dict else [*part]


class Unchanged:
    """Whether a module has the very attributes that it has now: its parts, its tensors, its options, its hooks."""

    def __init__(self, module: Any) -> None:
        self.module, self.attributes, self.assignments = module, {**vars(module)}, Hooked.assignments
        self.hooks = [*module._hooks]
        self.parts = [(part, entries_of(part)) for part in self.attributes.values() if type(part) in (list, dict)]

    def __call__(self) -> bool:
        for part, before in self.parts:  # may have changed without an assignment
            now = entries_of(part)
            if len(now) != len(before) or not all(map(operator.is_, now, before)):
                return False
        if self.assignments == Hooked.assignments:
            return True
        attributes, wanted = vars(self.module), self.attributes
        same = len(attributes) == len(wanted) and all(map(operator.is_, attributes.values(), wanted.values()))
        if same and [*self.module._hooks] == self.hooks:
            self.assignments = Hooked.assignments
            return True
        return False


def depend_on(*modules: Any) -> None:
    """Let a recording under way hold as long as the modules have the attributes and hooks that they have now."""
    if noting.recorder is not None:
        for module in modules:
            depend(Unchanged(module))


class HasForward(Protocol[P, R_co]):
    """For type checkers: an object whose `forward` takes P and returns R."""

    _hooks: Mapping[int, Hook]

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Hooked:
    """The part of a module that calls `forward`, and the hooks around it."""

    _hooks: Mapping[int, Hook] = {}
    assignments = 0  # to attributes of any module, so far

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        Hooked.assignments += 1

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        Hooked.assignments += 1

    def __call__(self: HasForward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        if noting.recorder is not None:
            depend_on(self)
        if self._hooks:
            refuse(type(self).__name__, "a hook")
            result: R_co = _call(self, args, kwargs)
            return result
        return self.forward(*args, **kwargs)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args)` before each `forward`; what it returns, unless None, replaces the arguments.

        `args` is the tuple of positional arguments; a result that is no tuple is the only argument. With `with_kwargs`
        the hook is called as `hook(module, args, kwargs)` and returns None or the pair of both. Hooks run in the order
        of their registration; `prepend` puts this one first. `remove()` of the handle that is returned, or the end of a
        `with` block, removes the hook. Copies of the module keep it. Raises TypeError if `hook` is not callable.
        """
        return self._add("register_forward_pre_hook", Hook("before", hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args, output)` after each `forward`; what it returns, unless None, replaces the output.

        With `with_kwargs` the hook is called as `hook(module, args, kwargs, output)`. Everything else is as in
        `register_forward_pre_hook`.

        >>> import needle as ndl
        >>> layer = ndl.nn.Linear(3, 2)
        >>> with layer.register_forward_hook(lambda module, args, output: print(args[0].shape, output.shape)):
        ...     y = layer(ndl.ones(5, 3))
        (5, 3) (5, 2)
        """
        return self._add("register_forward_hook", Hook("after", hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` when backward has passed a call of the module.

        Both are tuples of gradients: of the positional arguments, and of the results, a tensor or a tuple of tensors.
        They hold None for what is no floating tensor or requires no gradient; where no gradient flows, it is zero. What
        the hook returns, unless None, replaces `grad_input`: a tuple of a tensor or None for each argument. If no
        argument requires a gradient, the hook is called once those of the results are known, and cannot replace
        anything. Hooks run for every call of the module and every backward, and are differentiated where a graph of
        gradients is recorded (`create_graph=True`).

        Handle and order are as in `register_forward_pre_hook`. Raises TypeError if `hook` is not callable, or, in a
        call, if the module returns no tensors. Backward raises ValueError if what the hook returns does not fit,
        TypeError if it is on another device.
        """
        return self._add("register_full_backward_hook", Hook("back", hook), prepend)

    def _add(self, op: str, hook: Hook, prepend: bool) -> HookHandle:
        Hooked.assignments += 1
        check.instance(op, "prepend", prepend, bool)
        check.instance(op, "with_kwargs", hook.with_kwargs, bool)
        hooks: OrderedDict[int, Hook] = vars(self).setdefault("_hooks", OrderedDict())
        handle = add_hook(op, hooks, hook.function, hook)
        if prepend:
            hooks.move_to_end(next(reversed(hooks)), last=False)
        return handle


def _call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `forward` with the hooks around it."""
    hooks: list[Hook] = [*module._hooks.values()]
    for hook in hooks:
        if hook.when == "before":
            args, kwargs = _call_before(module, hook, args, kwargs)
    back = [hook.function for hook in hooks if hook.when == "back"] if is_grad_enabled() else []
    passing = Passing(module, back)
    if back:
        args = passing.arguments(args)
    result = module.forward(*args, **kwargs)
    for hook in [*module._hooks.values()]:  # hooks, and `forward`, may have added and removed some
        if hook.when == "after":
            given = (args, kwargs, result) if hook.with_kwargs else (args, result)
            changed = hook.function(module, *given)
            result = result if changed is None else changed
    return passing.results(result) if back else result


def _call_before(
    module: Any, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        if changed is None:
            return args, kwargs
        return (changed if isinstance(changed, tuple) else (changed,)), kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    match changed:
        case (tuple() as args, dict() as kwargs):
            return args, kwargs
    raise TypeError(
        f"{type(module).__name__}: a forward pre-hook with kwargs must return None or a pair (args, kwargs), "
        f"but got {changed!r}"
    )


class Passing:
    """One call of a module with backward hooks: the gradients of its results wait for those of its arguments."""

    def __init__(self, module: Any, hooks: Sequence[Callable[..., Any]]) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: tuple[Tensor | None, ...] | None = None
        self.count = 0  # of the arguments
        self.reaches_arguments = False

    def arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, whose gradients are seen."""
        passed = pass_through(self.see_input, args)
        self.count, self.reaches_arguments = len(args), passed is not None
        return args if passed is None else tuple(passed)

    def results(self, result: Any) -> Any:
        """The results, whose gradients are seen."""
        result = result.tuple() if isinstance(result, TensorTuple) else result
        results = [result] if isinstance(result, Tensor) else result
        if not isinstance(results, (list, tuple)) or not any(isinstance(x, Tensor) for x in results):
            raise TypeError(
                f"{type(self.module).__name__}: a module with a backward hook must return a Tensor or a tuple of "
                f"Tensors, but got {type(result).__name__}"
            )
        passed = pass_through(self.see_output, results)
        if passed is None:
            return result
        if isinstance(result, Tensor):
            return passed[0]
        return type(result)(*passed) if hasattr(result, "_fields") else type(result)(passed)

    def see_output(self, grads: Seen) -> Seen:
        """Keep the gradients of the results; call the hooks if no other gradients will come."""
        self.grad_output = tuple(grads)
        if not self.reaches_arguments:
            self.see_input([None] * self.count)
        return grads

    def see_input(self, grads: Seen) -> Seen:
        """Call the hooks with the gradients of the arguments, and return those that flow on."""
        grad_output, self.grad_output = self.grad_output, None
        if grad_output is None:  # in a second derivative gradients come from within the module, not from its results
            return grads
        for hook in self.hooks:
            changed = hook(self.module, tuple(grads), grad_output)
            if changed is not None:
                grads = self._checked(changed, grads)
        return grads

    def _checked(self, changed: Any, grads: Seen) -> Seen:
        """What a hook returned, if it can take the place of `grads`."""
        wanted = [None if grad is None else grad.shape for grad in grads]
        given: Any = changed if isinstance(changed, (tuple, list)) else [type(changed).__name__]
        got = [new.shape if isinstance(new, Tensor) else new for new in given]
        if len(got) != len(wanted) or any(mine not in (None, theirs) for mine, theirs in zip(got, wanted, strict=True)):
            raise ValueError(
                f"{type(self.module).__name__}: a backward hook must return a tuple of None or gradients of shapes "
                f"{wanted}, but got {got}"
            )
        for new, grad in zip(given, grads, strict=True):
            if new is not None and grad is not None:
                check_one_device(type(self.module).__name__, (grad, new))
        kept: Seen = given
        return kept
