"""Module: state around a function, found by walking attributes in order of definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike
from needle.init import zeros_like
from needle.nn.hooks import Hooked
from needle.nn.parameter import Buffer, Parameter
from needle.nn.state import MismatchedKeys, destination, load, move

__all__ = ["Module"]


class Module(Hooked):
    """Base class of layers and networks: a function with parameters, buffers and child modules.

    A subclass calls `super().__init__()`, assigns its state to `self`, and defines `forward`; calling the module calls
    `forward` with the same arguments. State is found in the order of definition, through lists, tuples and dicts at any
    depth: Parameters are learned, Buffers are saved but not learned, Modules are children. A plain Tensor is not state,
    unless it replaces a Parameter or a Buffer. A module, a Parameter or a Buffer can only be replaced by its like or by
    None (TypeError), and the sizes that describe parameters cannot be changed (AttributeError).

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

    # What a layer declares about its attributes:
    fixed: ClassVar[tuple[str, ...]] = ()  # options that its parameters were made for, which cannot change
    flags: ClassVar[tuple[str, ...]] = ()  # options that must be bools
    layouts: ClassVar[Mapping[str, tuple[int, ...]]] = {}  # parameters in another layout: the order of torch's axes
    optional: ClassVar[tuple[str, ...]] = ()  # buffers that older states lack
    # (x) -> relu(forward(x)), of a layer that computes both in one pass over memory; `Sequential` calls it
    forward_relu: Callable[..., Any] | None = None
    _buffers: Mapping[str, bool] = {}  # attributes declared as buffers, and whether they are saved

    def __init_subclass__(cls) -> None:
        for base in cls.__mro__:
            if "forward_relu" in vars(base):
                break
            if "forward" in vars(base) or "__call__" in vars(base):
                cls.forward_relu = None  # the inherited one belongs to another `forward`
                break

    def __init__(self) -> None:
        self.training = True

    def __setattr__(self, name: str, value: Any) -> None:
        state = vars(self)
        old, buffers = state.get(name), self._declared()
        op = type(self).__name__
        if name in self.fixed and name in state and value != old:
            raise AttributeError(
                f"{op}: {name} must stay {old!r}, for which the layer was made, but got {value!r}; make a new layer"
            )
        if name == "training" or name in self.flags:
            check.instance(op, name, value, bool)
        elif isinstance(old, Module) and value is not None:
            check.instance(op, name, value, Module)
        elif (isinstance(old, (Parameter, Buffer)) or name in buffers) and value is not None:
            check.instance(op, name, value, Tensor)
            buffers.setdefault(name, True)
        if isinstance(value, Buffer):
            buffers[name] = value.persistent
        elif isinstance(value, Parameter):
            buffers.pop(name, None)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._declared().pop(name, None)

    def _declared(self) -> dict[str, bool]:
        """The module's own `_buffers`; a subclass may assign attributes before `super().__init__()`."""
        declared: dict[str, bool] = vars(self).setdefault("_buffers", {})
        return declared

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Assign a tensor to the attribute `name` as a buffer: moved by `to`, saved if `persistent`, never learned.

        None declares the name for a tensor that is assigned later. Raises TypeError if `tensor` is not a Tensor,
        ValueError if the name has a dot or is that of another attribute.
        """
        check.instance("register_buffer", "persistent", persistent, bool)
        self._register("register_buffer", name, tensor, Tensor)
        self._declared()[name] = persistent

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Assign a Parameter to the attribute `name`; errors as in `register_buffer`.

        None declares the name: a tensor that is assigned later belongs to the state.
        """
        self._register("register_parameter", name, parameter, Parameter)
        if parameter is None:
            self._declared()[name] = True

    def _register(self, op: str, name: str, value: Tensor | None, kind: type) -> None:
        check.instance(op, "name", name, str)
        if value is not None:
            check.instance(op, kind.__name__.lower(), value, kind)
        if not name or "." in name or (hasattr(self, name) and name not in self._buffers):
            raise ValueError(f"{op}: name must be new, not empty and without a dot, but got {name!r}")
        setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of a call; every subclass defines its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """Pairs (dotted name, member): Parameters, Buffers and Modules held directly, also through containers."""
        for name, value in vars(self).items():
            if name in self._buffers and isinstance(value, Tensor):
                yield name, value
            else:
                yield from _members(name, value)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Pairs (dotted name, module): this module and its descendants, depth first; a shared one appears once."""
        return self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[Module]) -> Iterator[tuple[str, Module]]:
        if self not in seen:
            seen.add(self)
            yield prefix, self
            for name, child in self.named_children():
                yield from child._named_modules(_dotted(prefix, name), seen)

    def _named_tensors(self, *, saved: bool = False, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of this module and its descendants, under each of its names, in order of definition.

        With `saved`, those of `state_dict`: no buffer that is not persistent.
        """
        for name, member in self.named_members():
            if isinstance(member, Module):
                if recurse:
                    yield from ((_dotted(name, inner), tensor) for inner, tensor in member._named_tensors(saved=saved))
            elif not saved or self._buffers.get(name, getattr(member, "persistent", True)):
                yield name, member

    def _each_once(self, recurse: bool) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of this module and its descendants under its first name."""
        seen = set()
        for name, tensor in self._named_tensors(recurse=recurse):
            if tensor not in seen:
                seen.add(tensor)
                yield name, tensor

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Pairs (dotted name, Parameter) in order of definition; a shared one appears once, under its first name.

        Names begin with `prefix`. `recurse=False` leaves out those of child modules.
        """
        return ((_dotted(prefix, name), x) for name, x in self._each_once(recurse) if isinstance(x, Parameter))

    def parameters(self, recurse: bool = True) -> list[Parameter]:
        """The Parameters of this module and its descendants in order of definition, each once."""
        return [parameter for _, parameter in self.named_parameters(recurse=recurse)]

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Pairs (dotted name, Tensor) of the buffers, the tensors of the state that are not learned, each once."""
        return ((_dotted(prefix, name), x) for name, x in self._each_once(recurse) if not isinstance(x, Parameter))

    def buffers(self, recurse: bool = True) -> list[Tensor]:
        """The tensors of the state that are not learned, in order of definition, each once."""
        return [buffer for _, buffer in self.named_buffers(recurse=recurse)]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Pairs (name, module) of the direct child modules in order of definition, including those in containers."""
        return ((name, member) for name, member in self.named_members() if isinstance(member, Module))

    def children(self) -> list[Module]:
        """The direct child modules in order of definition, including those in containers."""
        return [child for _, child in self.named_children()]

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` with every descendant, children before their parents, then with this module; returns the module.

        A module with several names in one parent is visited once.
        """
        for child in dict.fromkeys(self.children()):
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Put this module and its descendants into training mode (evaluation with `mode=False`); returns the module."""
        check.instance("train", "mode", mode, bool)
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and its descendants into evaluation mode; returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let all parameters require a gradient, or freeze them with False; returns the module.

        Frozen parameters get no gradient, so optimizers skip them; one that they have stays until `zero_grad`. Running
        statistics are no parameters: `eval` stops them.
        """
        check.instance("requires_grad_", "requires_grad", requires_grad, bool)
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters: each `.grad` becomes None, or zeros with `set_to_none=False`."""
        check.instance("zero_grad", "set_to_none", set_to_none, bool)
        for parameter in self.parameters():
            keep = not set_to_none and parameter.grad is not None
            parameter.grad = zeros_like(parameter) if keep else None

    def to(self, device: Device | DTypeLike | None = None, dtype: DTypeLike | None = None) -> Self:
        """Move parameters and buffers to `device`, and cast the floating ones to `dtype`; returns the module.

        One of both will do, and a dtype may come first. Integers and bools keep their dtype. Gradients go along. The
        Tensor objects stay the same, so an optimizer that holds them keeps working, and its state follows. Raises
        TypeError unless `device` is a Device and `dtype` a floating dtype.
        """
        place, kind = destination(device, dtype)
        for _, tensor in self._named_tensors():
            move(tensor, place, kind)
        return self

    def half(self) -> Self:
        """Cast floating parameters and buffers, with their gradients, to float16, as `to` does; returns the module."""
        return self.to(dtype="float16")

    def float(self) -> Self:
        """Cast to float32, as `to` does; returns the module."""
        return self.to(dtype="float32")

    def double(self) -> Self:
        """Cast to float64, as `to` does; returns the module."""
        return self.to(dtype="float64")

    def state_dict(self, copy: bool = True) -> dict[str, Tensor]:
        """All parameters and persistent buffers by dotted name, as tensors that require no gradient.

        They are copies. With `copy=False` they share the memory of the module: they cost nothing, and change with it,
        which suits a state that is written to a file at once.
        """
        check.instance("state_dict", "copy", copy, bool)
        tensors = self._named_tensors(saved=True)
        return {name: Tensor(x, requires_grad=False) if copy else x.detach() for name, x in tensors}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> MismatchedKeys:
        """Copy values into the memory of the parameters and persistent buffers, by name.

        `state` maps dotted names to tensors or arrays, as `state_dict()` does, or the file that `np.load` opens of a
        .npz; values are cast to the dtype of their target, and one of integers or bools must hold them. With `strict`
        its names must equal those of `state_dict()`; otherwise names on one side only are ignored. Shapes must always
        agree. Returns both kinds of names, the `missing_keys` and the `unexpected_keys`.

        Values are written in place: memory orders stay, on which the rounding of products depends, and whatever shares
        the memory changes, too. Nothing is transposed. A torch tensor for a parameter whose axes have another order
        than torch's, such as `Linear.weight`, is refused, since its shape may fit by chance.

        Raises ValueError, before any value is copied, with all missing names, unexpected names, wrong shapes and
        layouts; TypeError if `state` is not a mapping of arrays of numbers.
        """
        check.instance("load_state_dict", "state", state, Mapping)
        check.instance("load_state_dict", "strict", strict, bool)
        modules = list(self.named_modules())
        return load(
            dict(self._named_tensors(saved=True)),
            state,
            strict,
            {_dotted(path, name) for path, module in modules for name in module.optional},
            {_dotted(path, name): how for path, module in modules for name, how in module.layouts.items()},
        )

    def extra_repr(self) -> str:
        """The options that `repr` prints in the module's own parentheses; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        options = self.extra_repr()
        children = [
            f"  ({name}): " + repr(member).replace("\n", "\n  ")
            for name, member in self.named_children()
        ]
        if not children:
            return f"{type(self).__name__}({options})"
        lines = [f"  {options}", *children] if options else children
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _dotted(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else name


def _members(prefix: str, value: Any) -> Iterator[tuple[str, Tensor | Module]]:
    """Pairs (dotted name, member) of the Parameters, Buffers and Modules in `value`, a member or a container."""
    if isinstance(value, (Parameter, Buffer, Module)):
        yield prefix, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _members(_dotted(prefix, key), entry)
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            yield from _members(_dotted(prefix, i), entry)
