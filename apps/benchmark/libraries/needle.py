"""The adapter of needle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import needle as ndl
from needle import data

from ..cases import Loading
from .base import Modules, blas

__all__ = ["Needle", "PlannedNeedle"]


class Needle(Modules):
    """needle, with the options that make it compute as torch does."""

    nn = ndl.nn
    residual = ndl.nn.Residual
    no_grad = staticmethod(ndl.no_grad)
    tensor = staticmethod(partial(ndl.Tensor, requires_grad=False))

    def about(self) -> str:
        return f"needle {ndl.__version__} on {blas()}"

    def assign(self, parameter: ndl.Tensor, array: np.ndarray) -> None:
        parameter.data = ndl.Tensor(array.reshape(parameter.shape))

    def optimizer(self, name: str, parameters: list[ndl.Tensor], options: dict[str, float]) -> ndl.optim.Optimizer:
        plain = {"dampening": 0} if name == "SGD" else {}  # torch's momentum
        return getattr(ndl.optim, name)(parameters, **options, **plain)

    def learn(self, loss: ndl.Tensor, optimizer: ndl.optim.Optimizer) -> ndl.Tensor:
        optimizer.reset_grad()
        loss.backward(create_graph=False)
        optimizer.step()
        return loss

    def gradients(self, y: ndl.Tensor, leaves: Sequence[ndl.Tensor], out_grad: ndl.Tensor, keep: bool) -> list[Any]:
        y.backward(out_grad, create_graph=False, retain_graph=keep)
        return [leaf.grad for leaf in leaves]

    def product(self, a: np.ndarray, b: np.ndarray) -> Callable[[], np.ndarray]:
        return partial(np.matmul, a, b, np.empty_like(a))

    def epochs(self, images: np.ndarray, labels: np.ndarray, work: Loading) -> Callable[[], list[ndl.Tensor]]:
        turn = [data.RandomAffine(work.degrees)] * work.rotates
        transforms = [data.RandomFlipHorizontal(), data.RandomCrop(work.padding), data.Normalize(0.5, 0.25), *turn]
        dataset = data.NDArrayDataset(images, labels)
        loader = data.DataLoader(dataset, work.batch, seed=0, transforms=transforms)
        return partial(last, loader)


class PlannedNeedle(Needle):
    """needle on the CPU, each training step a plan."""

    def about(self) -> str:
        return f"{super().about()}, steps captured"

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return ndl.capture(step)


def last(loader: data.DataLoader) -> list[ndl.Tensor]:
    """Read all batches; returns the last."""
    for batch in loader:
        fields = batch
    return list(fields)
