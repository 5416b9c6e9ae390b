"""The adapter of needle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import needle as ndl
from needle import data, distributed

from ..cases import Loading
from .base import Modules, blas

__all__ = ["Needle", "NeedleWorkers", "PlannedNeedle"]


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


class NeedleWorkers(Needle):
    """needle on several workers, each with its items of every batch."""

    def __init__(self) -> None:
        self.communicator = distributed.current_communicator()
        self.rank, self.watched = self.communicator.rank, Watched(self.communicator)

    launch = staticmethod(distributed.launch)

    def about(self) -> str:
        return f"{super().about()}, {self.communicator.size} workers"

    @property
    def exchanged(self) -> float:
        return self.watched.seconds

    def told(self, line: str) -> str:
        text = np.frombuffer(line.encode(), "uint8").copy()
        size = np.array(text.size)
        self.communicator.broadcast(size)
        text = text if self.rank == 0 else np.empty(size, "uint8")
        self.communicator.broadcast(text)
        return text.tobytes().decode()

    def items(self, array: np.ndarray) -> np.ndarray:
        self.watched.part = part = self.watched.part_of(len(array))
        return array if part is None else array[part.start : part.stop]

    def total(self, number: float) -> float:
        array = np.array(number, "float64")
        self.communicator.all_reduce(array)
        return float(array)

    def optimizer(self, name: str, parameters: list[ndl.Tensor], options: dict[str, float]) -> ndl.optim.Optimizer:
        self.gradients = distributed.SharedGradients(parameters)
        return super().optimizer(name, parameters, options)

    def learn(self, loss: ndl.Tensor, optimizer: ndl.optim.Optimizer) -> ndl.Tensor:
        optimizer.reset_grad()
        loss = self.gradients.backward(loss)
        optimizer.step()
        return loss

    def computing(self) -> Any:
        return distributed.using(self.watched)


class Watched(distributed.Communicator):
    """A communicator that counts the seconds of its exchanges."""

    def __init__(self, communicator: distributed.Communicator) -> None:
        self.inner, self.rank, self.size, self.seconds = communicator, communicator.rank, communicator.size, 0.0

    def _timed(self, exchange: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = exchange(*arguments)
        self.seconds += time.perf_counter() - start
        return result

    def all_reduce(self, array: np.ndarray, wire: str | None = None) -> None:
        self._timed(self.inner.all_reduce, array, wire)

    def start_all_reduce(self, array: np.ndarray, wire: str | None = None) -> WatchedRequest:
        return WatchedRequest(self, self._timed(self.inner.start_all_reduce, array, wire))

    def progress(self) -> bool:
        return bool(self._timed(self.inner.progress))

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        self._timed(self.inner.broadcast, array, root)


class WatchedRequest:
    """A request whose waiting is counted."""

    def __init__(self, watched: Watched, request: Any) -> None:
        self.watched, self.request = watched, request

    def wait(self) -> None:
        self.watched._timed(self.request.wait)
