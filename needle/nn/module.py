"""Module: state around functions, found by walking attributes in the order of their definition."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor
from needle.backend_ndarray import BackendDevice


class Parameter(Tensor):
    """A tensor that a module learns; it requires grad."""

    __slots__ = ()


class Module:
    """A function with parameters, buffers and children.

    What is assigned to `self` is found in the order of definition, through lists, tuples and dicts at any depth:
    Parameters are learned, other Tensors are buffers (saved with the state, not learned), Modules are children.
    """

    def __init__(self):
        self.training = True

    def forward(self, *args, **kwargs):
        """What calling the module computes; each module defines its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_members(self):
        """The tensors and modules held directly, through containers: pairs (dotted name, member)."""
        return _members("", vars(self))

    def named_modules(self, prefix=""):
        """This module and every one below it: pairs (dotted name, module)."""
        yield prefix, self
        for name, member in self.named_members():
            if isinstance(member, Module):
                yield from member.named_modules(_dotted(prefix, name))

    def _named_tensors(self):
        """Every tensor of this module and those below, under each of its names, in order of definition."""
        for name, member in self.named_members():
            if isinstance(member, Module):
                yield from ((_dotted(name, below), tensor) for below, tensor in member._named_tensors())
            else:
                yield name, member

    def named_parameters(self):
        """Pairs (dotted name, Parameter) in order of definition; a shared one comes once, under its first name."""
        seen = set()
        for name, tensor in self._named_tensors():
            if isinstance(tensor, Parameter) and tensor not in seen:
                seen.add(tensor)
                yield name, tensor

    def parameters(self):
        """The Parameters in order of definition, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self):
        """Pairs (dotted name, Tensor) of the tensors that are saved but not learned, in order of definition."""
        return ((name, tensor) for name, tensor in self._named_tensors() if not isinstance(tensor, Parameter))

    def buffers(self):
        """The tensors that are saved but not learned, in order of definition."""
        return [buffer for _, buffer in self.named_buffers()]

    def children(self):
        """The modules held directly, in order of definition."""
        return [member for _, member in self.named_members() if isinstance(member, Module)]

    def train(self, mode=True):
        """Switch this module and all below to training (or evaluation) and return it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Switch this module and all below to evaluation and return it."""
        return self.train(False)

    def to(self, device):
        """Move every parameter and buffer, with their gradients, to `device` and return this module."""
        check.instance("to", "device", device, BackendDevice)
        for _, tensor in self._named_tensors():
            if tensor.device != device:
                tensor.data = tensor.detach().to(device)
                tensor.grad = tensor.grad if tensor.grad is None else tensor.grad.detach().to(device)
        return self

    def state_dict(self):
        """Copies of all parameters and buffers: dotted name -> Tensor."""
        return {name: Tensor(tensor, requires_grad=False) for name, tensor in self._named_tensors()}

    def load_state_dict(self, state, strict=True):
        """Copy values into parameters and buffers by name.

        `state` maps dotted names to tensors or arrays. With `strict` every name must be there and no other. Raises
        ValueError that lists missing names, unexpected names and wrong shapes, before anything is copied.
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

    def extra_repr(self):
        """What the module's own parentheses show when it is printed."""
        return ""

    def __repr__(self):
        lines = [
            f"  ({name}): " + repr(member).replace("\n", "\n  ")
            for name, member in self.named_members()
            if isinstance(member, Module)
        ]
        extra = self.extra_repr()
        if lines:
            extra = "\n".join(["", *[f"  {extra}"] * bool(extra), *lines, ""])
        return f"{type(self).__name__}({extra})"


class Sequential(Module):
    """Modules applied one after another; `modules` holds them, and an index picks one."""

    def __init__(self, *modules):
        super().__init__()
        for module in modules:
            check.instance("Sequential", "module", module, Module)
        self.modules = modules

    def forward(self, x):
        for module in self.modules:
            x = module(x)
        return x

    def named_members(self):
        return ((name.removeprefix("modules."), member) for name, member in super().named_members())

    def __getitem__(self, index):
        return self.modules[index]

    def __len__(self):
        return len(self.modules)


class Residual(Module):
    """x + fn(x)."""

    def __init__(self, fn):
        super().__init__()
        self.fn = check.instance("Residual", "fn", fn, Module)

    def forward(self, x):
        return self.fn(x) + x


def _dotted(prefix, name):
    return f"{prefix}.{name}" if prefix else name


def _members(prefix, value):
    """The tensors and modules in `value`, a member itself or a container of members: pairs (dotted name, member)."""
    if isinstance(value, (Tensor, Module)):
        yield prefix, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _members(_dotted(prefix, key), entry)
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            yield from _members(_dotted(prefix, i), entry)
