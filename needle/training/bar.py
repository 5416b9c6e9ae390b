"""A progress bar for the epoch that runs, if tqdm is installed."""

from __future__ import annotations

import sys
import time
from typing import Any

from needle import check
from needle.training.figures import Figures
from needle.training.state import TrainingState

__all__ = ["ProgressBar"]

REFRESH = 0.2  # seconds between two looks at the figures: on a GPU each waits for the queued work


class ProgressBar:
    """A callback that shows epoch, loss, metrics, items per second and the time left on stderr."""

    def __init__(self, figures: Figures, epochs: int, batches: int) -> None:
        self.figures, self.epochs, self.batches = figures, epochs, batches
        self._bar: Any = None
        self._next = 0.0  # when to look at the figures again
        self._steps = 0  # that the bar does not show yet

    @staticmethod
    def is_wanted(bar: bool | None) -> bool:
        """Whether to show one: None means if stderr is a terminal and tqdm is installed."""
        from importlib.util import find_spec

        if bar is None:
            is_terminal = sys.stderr is not None and sys.stderr.isatty()
            return is_terminal and find_spec("tqdm") is not None
        if check.instance("fit", "bar", bar, bool) and find_spec("tqdm") is None:
            raise ModuleNotFoundError("fit: bar needs tqdm, which `pip install tqdm` installs, but got no module tqdm")
        return bool(bar)

    def on_epoch_start(self, state: TrainingState) -> None:
        from tqdm import tqdm

        self._next, self._steps = 0.0, 0
        name = f"epoch {state.epoch + 1}/{self.epochs}"
        start = {"initial": state.batch, "total": self.batches or None}
        self._bar = tqdm(desc=name, unit="batch", leave=False, mininterval=0, miniters=1, **start)

    def on_step(self, state: TrainingState) -> None:
        self._steps += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REFRESH
            figures = self.figures.compute().items()
            shown = [f"{name} {value:.4f}" for name, value in figures if isinstance(value, float)]
            speed = self.figures.items / state.seconds if state.seconds else 0.0
            self._bar.set_postfix_str(", ".join([*shown, f"{speed:,.0f} items/s"]), refresh=False)
            self._bar.update(self._steps)
            self._steps = 0

    def on_epoch_end(self, state: TrainingState) -> None:
        self.on_exit(state)

    def on_exit(self, state: TrainingState) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
