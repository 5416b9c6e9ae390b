"""Modules that combine other modules, and the identity."""

from __future__ import annotations

from collections.abc import Iterator

from needle import check
from needle.autograd import Tensor
from needle.nn.module import Module

__all__ = ["Identity", "Residual", "Sequential"]


class Sequential(Module):
    """Apply modules one after another: each takes the result of the previous one.

    `modules` holds them as a tuple; `len(model)`, `model[i]` and iteration read it. Their parameters are named by
    position: `0.weight`. Without modules the result is x itself. Raises TypeError if an argument is not a Module.

    >>> from needle import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for module in modules:
            check.instance("Sequential", "module", module, Module)
        self.modules = modules

    def forward(self, x: Tensor) -> Tensor:
        for module in self.modules:
            x = module(x)
        return x

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        return ((name.removeprefix("modules."), member) for name, member in super().named_members())

    def __getitem__(self, index: int) -> Module:
        return self.modules[index]

    def __len__(self) -> int:
        return len(self.modules)


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
    """x itself, unchanged: a placeholder where a network needs no layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x
