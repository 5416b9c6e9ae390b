"""Module and Parameter: state around functions, found by walking attributes in the order of their definition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from needle import check
from needle.autograd import Tensor
from needle.backend import Device

__all__ = ["Module", "Parameter"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Parameter(Tensor):
    """A tensor that a module learns.

    `Parameter(array, *, device=None, dtype=None)` copies its argument, as `Tensor` does, and requires a gradient.

    >>> import needle as ndl
    >>> Parameter(ndl.ones(2))
    Tensor([1. 1.], requires_grad=True)
    """

    __slots__ = ()


class HasForward(Protocol[P, R_co]):
    """For type checkers: an object whose `forward` takes P and returns R."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Module:
    """Base class of layers and networks: a function with parameters, buffers and child modules.

    A subclass calls `super().__init__()`, assigns its state to `self`, and defines `forward`; calling the module calls
    `forward` with the same arguments. State is found in the order of definition, through lists, tuples and dicts at any
    depth: Parameters are learned, other Tensors are buffers (saved with the state, not learned), Modules are children.

    Types: a call has the types of the subclass's own `forward`. With `def forward(self, x: Tensor) -> Tensor` a checker
    infers `Tensor` for `model(x)`; a `forward` that returns a tuple, or takes more arguments, needs nothing else.
    Called through a variable declared as plain `Module`, the result is `Any`, since its `forward` is unknown.

    >>> import needle as ndl
    >>> class Scale(Module):
    ...     def __init__(self, start: float) -> None:
    ...         super().__init__()
    ...         self.factor = Parameter(ndl.init.constant(1, c=start))
    ...
    ...     def forward(self, x: ndl.Tensor) -> ndl.Tensor:
    ...         return x * self.factor
    >>> model = Scale(3.0)
    >>> model(ndl.ones(2)).numpy().tolist()
    [3.0, 3.0]
    >>> [name for name, _ in model.named_parameters()]
    ['factor']
    """

    def __init__(self) -> None:
        self.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of a call; every subclass defines its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def __call__(self: HasForward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.forward(*args, **kwargs)

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """Pairs (dotted name, tensor or module) of the direct members, including those in containers."""
        return _members("", vars(self))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Pairs (dotted name, module): this module, then all its descendants, depth first."""
        yield prefix, self
        for name, member in self.named_members():
            if isinstance(member, Module):
                yield from member.named_modules(_dotted(prefix, name))

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of this module and its descendants, under each of its names, in order of definition."""
        for name, member in self.named_members():
            if isinstance(member, Module):
                yield from ((_dotted(name, inner), tensor) for inner, tensor in member._named_tensors())
            else:
                yield name, member

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Pairs (dotted name, Parameter) in order of definition; a shared one appears once, under its first name."""
        seen = set()
        for name, tensor in self._named_tensors():
            if isinstance(tensor, Parameter) and tensor not in seen:
                seen.add(tensor)
                yield name, tensor

    def parameters(self) -> list[Parameter]:
        """The Parameters of this module and its descendants in order of definition, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs (dotted name, Tensor) of the buffers, the tensors that are saved but not learned."""
        return ((name, tensor) for name, tensor in self._named_tensors() if not isinstance(tensor, Parameter))

    def buffers(self) -> list[Tensor]:
        """The tensors that are saved but not learned, in order of definition."""
        return [buffer for _, buffer in self.named_buffers()]

    def children(self) -> list[Module]:
        """The direct child modules in order of definition, including those in containers."""
        return [member for _, member in self.named_members() if isinstance(member, Module)]

    def train(self, mode: bool = True) -> Self:
        """Put this module and its descendants into training mode (evaluation with `mode=False`); returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and its descendants into evaluation mode; returns the module."""
        return self.train(False)

    def to(self, device: Device) -> Self:
        """Move all parameters and buffers, with their gradients, to `device`; returns the module.

        The Tensor objects stay the same, so an optimizer that holds them keeps working. Raises TypeError if `device` is
        not a device.
        """
        check.instance("to", "device", device, Device)
        for _, tensor in self._named_tensors():
            if tensor.device != device:
                tensor.data = tensor.detach().to(device)
                tensor.grad = None if tensor.grad is None else tensor.grad.detach().to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers by dotted name; they require no gradient."""
        return {name: Tensor(tensor, requires_grad=False) for name, tensor in self._named_tensors()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copy values into the parameters and buffers by name.

        `state` maps dotted names to tensors or arrays, which are cast to the dtype of their target. With `strict` its
        names must equal those of `state_dict()`; otherwise names on one side only are ignored. Shapes must always
        agree. Raises ValueError, before any value is copied, with all missing names, unexpected names and wrong shapes;
        TypeError if `state` is not a dict.
        """
        check.instance("load_state_dict", "state", state, dict)
        own = dict(self._named_tensors())
        problems = []
        if strict:
            problems += [f"missing {name} {own[name].shape}" for name in own if name not in state]
            problems += [f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in own]
        common = [name for name in own if name in state]
        for name in common:
            if tuple(state[name].shape) != own[name].shape:
                problems.append(f"{name} has shape {own[name].shape}, not {tuple(state[name].shape)}")
        if problems:
            raise ValueError(f"load_state_dict: names and shapes must agree, but got {'; '.join(problems)}")
        values = {name: Tensor(state[name], device=own[name].device, dtype=own[name].dtype) for name in common}
        for name, value in values.items():
            own[name].data = value

    def extra_repr(self) -> str:
        """The options that `repr` prints in the module's own parentheses; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        options = self.extra_repr()
        children = [
            f"  ({name}): " + repr(member).replace("\n", "\n  ")
            for name, member in self.named_members()
            if isinstance(member, Module)
        ]
        if not children:
            return f"{type(self).__name__}({options})"
        lines = [f"  {options}", *children] if options else children
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _dotted(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else name


def _members(prefix: str, value: Any) -> Iterator[tuple[str, Tensor | Module]]:
    """Pairs (dotted name, member) of the tensors and modules in `value`, a member or a container of members."""
    if isinstance(value, (Tensor, Module)):
        yield prefix, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _members(_dotted(prefix, key), entry)
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            yield from _members(_dotted(prefix, i), entry)
