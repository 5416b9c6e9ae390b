"""The adapter of PyTorch, eager and compiled."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import distributed

from ..cases import Layer, Loading, Shape
from .base import Modules
from .torch_data import BatchedImages, Images, epochs

__all__ = ["BatchedTorch", "CompiledTorch", "DistributedTorch", "Torch"]


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

    def learn(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

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

    def epochs(self, images: np.ndarray, labels: np.ndarray, work: Loading) -> Callable[[], list[torch.Tensor]]:
        return epochs(Images(images, labels, work))


class BatchedTorch(Torch):
    """PyTorch with transforms of whole batches, in a data set with `__getitems__`."""

    mode = "eager, batches in __getitems__"

    def epochs(self, images: np.ndarray, labels: np.ndarray, work: Loading) -> Callable[[], list[torch.Tensor]]:
        return epochs(BatchedImages(images, labels, work), collate_fn=tuple)


class CompiledTorch(Torch):
    """PyTorch with its networks compiled."""

    mode = "compiled"

    def network(self, layers: Iterable[Layer], shape: Shape, arrays: Iterable[np.ndarray]) -> tuple[Any, list[Any]]:
        model, parameters = super().network(layers, shape, arrays)
        return torch.compile(model), parameters


class DistributedTorch(Torch):
    """PyTorch's DistributedDataParallel over gloo: ranks of one thread each, with equal parts of every batch.

    Its batch norm uses the items of one rank: SyncBatchNorm is for GPUs.
    """

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.mode = f"DistributedDataParallel, gloo, {self.size} processes"

    @staticmethod
    def launch(main: Callable[..., None], ranks: int, arguments: Sequence[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            common = (ranks, f"file://{folder}/ranks", main, arguments)
            context = multiprocessing.get_context("spawn")
            others = [context.Process(target=take_part, args=(i, *common), daemon=True) for i in range(1, ranks)]
            for process in others:
                process.start()
            take_part(0, *common)
            for process in others:
                process.join()

    def network(self, layers: Iterable[Layer], shape: Shape, arrays: Iterable[np.ndarray]) -> tuple[Any, list[Any]]:
        model, parameters = super().network(layers, shape, arrays)
        return torch.nn.parallel.DistributedDataParallel(model), parameters

    def told(self, line: str) -> str:
        lines = [line]
        distributed.broadcast_object_list(lines)
        return lines[0]

    def items(self, array: np.ndarray) -> np.ndarray:
        return np.array_split(array, self.size)[self.rank]

    def total(self, number: float) -> float:
        tensor = torch.tensor(number, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return tensor.item()

    def whole(self, result: float) -> float:
        return self.total(result) / self.size


def take_part(rank: int, ranks: int, address: str, main: Callable[..., None], arguments: Sequence[Any]) -> None:
    """One rank's call of main(*arguments)."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", address, rank=rank, world_size=ranks)
    try:
        main(*arguments)
    finally:
        distributed.destroy_process_group()
