"""Modules that hold other modules or parameters, and the identity."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, overload

from needle import check
from needle.autograd import Tensor
from needle.nn.activation import ReLU
from needle.nn.hooks import depend_on
from needle.nn.module import Module
from needle.nn.parameter import Parameter
from needle.nn.pool import commutes_with_relu

__all__ = ["Identity", "ModuleDict", "ModuleList", "ParameterList", "Residual", "Sequential"]


class _Sequence(Module):
    """Modules in `modules`, a tuple, that are read and changed as those of a list are; named by position."""

    modules: tuple[Module, ...]

    def __init__(self, modules: Iterable[Module]) -> None:
        super().__init__()
        self.modules = self._checked(modules)

    def _checked(self, modules: Iterable[Module]) -> tuple[Module, ...]:
        return tuple(check.instance(type(self).__name__, "module", module, Module) for module in modules)

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        return ((name.removeprefix("modules."), member) for name, member in super().named_members())

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Module | Self:
        return self._of(self.modules[index]) if isinstance(index, slice) else self.modules[index]

    def _of(self, modules: tuple[Module, ...]) -> Self:
        """The kind of sequence that a slice is."""
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        modules = list(self.modules)
        (modules[index],) = self._checked([module])
        self.modules = tuple(modules)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self.modules)
        del modules[index]
        self.modules = tuple(modules)

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before position `index`; returns the sequence."""
        self.modules = (*self.modules[:index], *self._checked([module]), *self.modules[index:])
        return self

    def append(self, module: Module) -> Self:
        """Put a module at the end; returns the sequence."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put modules at the end, in order; returns the sequence."""
        self.modules = (*self.modules, *self._checked(modules))
        return self

    def __add__(self, modules: Iterable[Module]) -> Self:
        return self._of((*self.modules, *modules))

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def pop(self, index: int = -1) -> Module:
        """Take the module at `index` out of the sequence."""
        module = self.modules[index]
        del self[index]
        return module


class Sequential(_Sequence):
    """Apply modules one after another: each takes the result of the previous one.

    `modules` holds them as a tuple. The model is read and changed as a list is: `len(model)`, `model[i]`, `model[:3]`
    (a Sequential), `model[-1] = layer`, `del model[0]`, `append`, `insert`, `extend`, `pop`. Parameters are named by
    position: `0.weight`. Without modules the result is x itself. Raises TypeError if an argument is not a Module.

    On the CPU a max-pooling runs before a ReLU in front of it, which has fewer elements to do then. Else a ReLU behind
    a layer with `forward_relu`, a convolution, a linear layer or a batch normalization, runs in the pass of that layer,
    and the graph keeps one array less. Results and gradients are the same. Modules with hooks, and subclasses with
    another `forward`, run in their place.

    >>> from needle import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def _of(self, modules: tuple[Module, ...]) -> Sequential:
        return Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        modules, i = list(self.modules), 0
        while i < len(modules):
            if type(modules[i]) is ReLU and _commute(modules[i], modules[i + 1 : i + 2], x):
                modules[i], modules[i + 1] = modules[i + 1], modules[i]
            module, behind = modules[i], modules[i + 1 : i + 3]
            forward_relu = module.forward_relu
            if forward_relu and _takes_relu(module, behind[:1]) and not _commute(behind[0], behind[1:], x):
                depend_on(module, behind[0])
                x, i = forward_relu(x), i + 2
            else:
                x, i = module(x), i + 1
        return x


def _commute(relu: Module, following: list[Module], x: Tensor) -> bool:
    """Whether a max-pooling follows that may come first.

    A step of LeNet takes 12.8 ms instead of 15.2: relu and its gradient have a quarter of the elements.
    """
    return (
        len(following) == 1
        and commutes_with_relu(following[0])
        and isinstance(x, Tensor)
        and x.dtype.kind == "f"  # relu takes bools, of which there are no maxima
        and not x.device.is_async  # where the layer in front computes relu in its launch
        and not any(module._hooks or "forward" in vars(module) for module in (relu, *following))
    )


def _takes_relu(module: Module, following: list[Module]) -> bool:
    """Whether a ReLU follows a module that may compute it: nothing can see what is between them.

    The graph keeps one array less. Time is saved behind batch normalization only, and little: 4 % of a step of ten
    narrow blocks, with what the normalization itself saves.
    """
    return (
        len(following) == 1
        and type(following[0]) is ReLU
        and not any(pair._hooks or "forward" in vars(pair) for pair in (module, *following))
    )


class ModuleList(_Sequence):
    """A list of modules, which a `forward` of one's own calls; read and changed as `Sequential` is.

    In needle a plain list does as well: modules are found in lists, tuples and dicts. Raises TypeError if an element is
    not a Module.

    >>> from needle import nn
    >>> layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    >>> len(layers[1:]), [name for name, _ in layers.named_parameters()][:2]
    (2, ['0.weight', '0.bias'])
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__([] if modules is None else modules)

    def _of(self, modules: tuple[Module, ...]) -> ModuleList:
        return ModuleList(modules)


class ModuleDict(Module):
    """Modules by name, read and changed as a dict is: `heads["digits"]`, `in`, `len`, `keys`, `values`, `items`, ….

    Parameters are named by key: `digits.weight`. In needle a plain dict does as well. Raises TypeError if a value is
    not a Module or a key not a string, ValueError if a key is empty or has a dot.

    >>> from needle import nn
    >>> heads = nn.ModuleDict({"digits": nn.Linear(8, 10)})
    >>> heads["parity"] = nn.Linear(8, 2)
    >>> list(heads)
    ['digits', 'parity']
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.modules: dict[str, Module] = {}
        self.update({} if modules is None else modules)

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        return ((name.removeprefix("modules."), member) for name, member in super().named_members())

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __contains__(self, key: object) -> bool:
        return key in self.modules

    def __getitem__(self, key: str) -> Module:
        return self.modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        check.instance("ModuleDict", "key", key, str)
        if not key or "." in key:
            raise ValueError(f"ModuleDict: key must not be empty or have a dot, but got {key!r}")
        self.modules[key] = check.instance("ModuleDict", "module", module, Module)

    def __delitem__(self, key: str) -> None:
        del self.modules[key]

    def keys(self) -> KeysView[str]:
        """The names, in order of insertion."""
        return self.modules.keys()

    def values(self) -> ValuesView[Module]:
        """The modules, in order of insertion."""
        return self.modules.values()

    def items(self) -> ItemsView[str, Module]:
        """Pairs (name, module), in order of insertion."""
        return self.modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules, from a mapping or from pairs (name, module)."""
        for key, module in dict(modules).items():
            self[key] = module

    def pop(self, key: str) -> Module:
        """Take the module called `key` out of the dict."""
        return self.modules.pop(key)

    def clear(self) -> None:
        """Remove all modules."""
        self.modules.clear()


class ParameterList(Module):
    """A list of Parameters, named by position; other tensors become Parameters (copies).

    In needle a plain list of Parameters does as well.

    >>> import needle as ndl
    >>> scales = ParameterList([ndl.ones(2), ndl.ones(3)])
    >>> [(name, p.shape) for name, p in scales.named_parameters()]
    [('0', (2,)), ('1', (3,))]
    """

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.entries: list[Parameter] = []
        self.extend([] if values is None else values)

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        return ((name.removeprefix("entries."), member) for name, member in super().named_members())

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Parameter:
        return self.entries[index]

    def __setitem__(self, index: int, value: Tensor) -> None:
        self.entries[index] = _as_parameter(value)

    def append(self, value: Tensor) -> Self:
        """Put a Parameter at the end; returns the list."""
        return self.extend([value])

    def extend(self, values: Iterable[Tensor]) -> Self:
        """Put Parameters at the end, in order; returns the list."""
        self.entries.extend(map(_as_parameter, values))
        return self


def _as_parameter(value: Tensor) -> Parameter:
    if isinstance(value, Parameter):
        return value
    return Parameter(check.instance("ParameterList", "value", value, Tensor))


class Residual(Module):
    """x + fn(x), for a module `fn` with a result of the shape of x, or one that broadcasts with it.

    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), equation 1. Raises TypeError if `fn`
    is not a Module.
    """

    def __init__(self, fn: Module) -> None:
        super().__init__()
        self.fn: Module = check.instance("Residual", "fn", fn, Module)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fn(x)
        return y + x


class Identity(Module):
    """x itself, unchanged: a placeholder where a network needs no layer. Arguments of that layer are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
