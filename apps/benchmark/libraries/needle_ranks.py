"""The adapters of needle in several processes, each with its part of every batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

import needle as ndl
from needle import distributed

from .needle import Needle, PlannedNeedle

__all__ = ["NeedleApart", "NeedleOnMpi", "NeedleWorkers", "PlannedNeedleOnMpi"]


class NeedleWorkers(Needle):
    """needle on several workers of one machine, each with its items of every batch."""

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

    def computing(self) -> AbstractContextManager[None]:
        return distributed.using(self.watched)


class NeedleOnMpi(NeedleWorkers):
    """The same with ranks that mpiexec has started, on one machine or several."""

    @staticmethod
    def launch(main: Callable[..., None], ranks: int, arguments: Sequence[Any]) -> None:
        with distributed.join():
            main(*arguments)

    def about(self) -> str:
        from mpi4py import MPI

        library = MPI.Get_library_version().split("\n")[0].replace("\t", " ").rstrip("\0, ")
        return f"{Needle.about(self)}, {self.communicator.size} ranks of {library}"


class PlannedNeedleOnMpi(NeedleOnMpi):
    """The same, each training step a plan."""

    captured = PlannedNeedle.captured

    def about(self) -> str:
        return f"{super().about()}, steps captured"


class NeedleApart(NeedleWorkers):
    """needle in several processes that train on their parts of each batch and exchange nothing: no gain is larger."""

    optimizer = Needle.optimizer
    learn = Needle.learn

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()


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

    def all_gather(self, array: np.ndarray) -> list[np.ndarray]:
        return list(self._timed(self.inner.all_gather, array))

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        self._timed(self.inner.broadcast, array, root)


class WatchedRequest:
    """A request whose waiting is counted."""

    def __init__(self, watched: Watched, request: Any) -> None:
        self.watched, self.request = watched, request

    def wait(self) -> None:
        self.watched._timed(self.request.wait)
