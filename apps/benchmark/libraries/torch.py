"""The adapter of PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ..cases import Layer, Shape
from .base import Modules

__all__ = ["CompiledTorch", "Torch"]


class Residual(torch.nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: torch.nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fn(x) + x


class Torch(Modules):
    """PyTorch in eager mode."""

    nn = torch.nn
    residual = Residual
    no_grad = torch.no_grad
    tensor = staticmethod(torch.tensor)
    mode = "eager"

    def about(self) -> str:
        kernels, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
        return f"torch {torch.__version__} ({self.mode}, kernels: {kernels}, threads: {threads})"

    def assign(self, parameter: torch.Tensor, array: np.ndarray) -> None:
        """torch keeps the weight of a linear layer as (out, in)."""
        parameter.data = torch.tensor(array.T if array.ndim == 2 else array).contiguous()

    def optimizer(self, name: str, parameters: list[torch.Tensor], options: dict[str, float]) -> torch.optim.Optimizer:
        return getattr(torch.optim, name)(parameters, **options)

    def learn(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def gradients(
        self, y: torch.Tensor, leaves: Sequence[torch.Tensor], out_grad: torch.Tensor, keep: bool
    ) -> list[torch.Tensor]:
        grads = torch.autograd.grad(y, leaves, out_grad, retain_graph=keep)
        return [self.in_needle_layout(leaf, grad) for leaf, grad in zip(leaves, grads, strict=True)]

    def in_needle_layout(self, leaf: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """The gradient of a linear layer's weight as (in, out): a view."""
        return grad.T if isinstance(leaf, torch.nn.Parameter) and grad.ndim == 2 else grad

    def product(self, a: np.ndarray, b: np.ndarray) -> Callable[[], torch.Tensor]:
        left, right = torch.tensor(a), torch.tensor(b)
        return partial(torch.mm, left, right, out=torch.empty_like(left))


class CompiledTorch(Torch):
    """PyTorch with its networks compiled."""

    mode = "compiled"

    def network(self, layers: Iterable[Layer], shape: Shape, arrays: Iterable[np.ndarray]) -> tuple[Any, list[Any]]:
        model, parameters = super().network(layers, shape, arrays)
        return torch.compile(model), parameters
