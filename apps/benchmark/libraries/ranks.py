"""What an adapter adds whose library divides a batch among several processes, its ranks; here: one process has all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

__all__ = ["Single"]


class Single:
    """A library in one process; those with several replace all of this."""

    rank = 0
    burst = 1  # runs that are timed together
    exchanged = 0.0  # seconds that this rank has spent in exchanges so far, waiting for the others included

    @staticmethod
    def launch(main: Callable[..., None], ranks: int, arguments: Sequence[Any]) -> None:
        """Call main(*arguments) on every rank at once."""
        main(*arguments)

    def wait(self) -> None:
        """Wait until the work of all runs is done."""

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A training step as the library is to run it."""
        return step

    def told(self, line: str) -> str:
        """The line that rank 0 has."""
        return line

    def items(self, array: np.ndarray) -> np.ndarray:
        """This rank's items of a batch."""
        return array

    def total(self, number: float) -> float:
        """The sum of a number over the ranks."""
        return number

    def computing(self) -> AbstractContextManager[None]:
        """A block in which the library divides its work among the ranks."""
        return nullcontext()

    def whole(self, result: Any) -> Any:
        """The result of a run for the whole batch, where `result` is that for this rank's items."""
        return result
