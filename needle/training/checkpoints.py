"""The files of a run: `last.npz`, from which it goes on, and `best.npz`, the best epoch's."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from needle import check
from needle.nn import Module
from needle.ops import isfinite
from needle.training.state import TrainingState
from needle.training.stopping import NonFiniteLoss, is_better

__all__ = ["Checkpoints"]


class Checkpoints:
    """Writes `last.npz` and `best.npz` into a folder, which is created if missing.

    `fit` writes `last.npz` before the first step, so that a folder that cannot be written to is found then, after every
    epoch, after every `every` batches if asked, and when it is stopped; and `best.npz` whenever the figure `monitor` of
    an epoch ("val_loss" by default, or "loss" without validation) falls below its best, or rises above it with
    `mode="max"`. Both are whole states of the run: `ndl.load(path)["model"]` is that of the model.

    After an error in the first step the run is as it was at the start, and no file is left.

    A file is replaced as a whole or not at all. If a write fails in the middle of training, a RuntimeWarning tells, the
    earlier file stays, and training goes on to the next try; a failure at the end is raised. Weights that are not
    finite are never written.

    Raises TypeError or ValueError if `every` is not an integer of at least 1 or `mode` neither "min" nor "max".
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | None = None,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        self.folder = Path(folder)
        self.every = every if every is None else check.integer("Checkpoints", "every", every, least=1)
        self.monitor = monitor if monitor is None else check.instance("Checkpoints", "monitor", monitor, str)
        self.mode = check.one_of("Checkpoints", "mode", mode, ("min", "max"))
        self.last, self.best = self.folder / "last.npz", self.folder / "best.npz"
        self.best_figure: float | None = None
        self._saved: tuple[int, int] | None = None  # epoch and batch of the `last.npz` that was written
        self._is_new = False  # there was none when the run began

    def start(self, state: TrainingState, resume: bool | str | os.PathLike[str] = False) -> None:
        """Load the state to go on from, and write it as `last.npz`.

        `resume=True` goes on from `last.npz` if there is one; a path names the file.

        Raises FileExistsError if the folder holds another run, OSError if it cannot be written to.
        """
        path = self.last if resume is True else Path(resume) if resume else None
        held = [file for file in (self.last, self.best) if file.exists()]
        if held and (path is None or path.resolve().parent != self.folder.resolve()):
            raise FileExistsError(
                f"fit: checkpoints must be a folder without a run, or resume must name it, but got {held[0]}"
            )
        if path is not None and (path.exists() or resume is not True):
            state.load(path)
        if not state.epoch:
            self.best_figure = None  # of an earlier run
        self._is_new = not self.last.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.save(self.last, state)

    def on_step(self, state: TrainingState) -> None:
        """Called by `fit`: write `last.npz` if it is time."""
        if self.every and state.batch % self.every == 0:
            self._try(self.last, state)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Called by `fit`: write `best.npz` if the epoch is the best, then `last.npz`."""
        figure = state.figure(self.monitor)
        if is_better(figure, self.best_figure, self.mode):
            before, self.best_figure = self.best_figure, figure
            if not self._try(self.best, state):  # first: the figure in last.npz is that of best.npz
                self.best_figure = before
        self._try(self.last, state)

    def on_end(self, state: TrainingState) -> None:
        """Called by `fit`: write `last.npz` unless it holds this state already."""
        if self._saved != (state.epoch, state.batch):
            self.save(self.last, state)

    def on_exit(self, state: TrainingState) -> None:
        """Called by `fit`: after an error in the first step all is as it was, and the folder holds no run."""
        if self._is_new and (state.epoch, state.batch) == (0, 0) and self.last.exists():
            state.load(self.last)
            self.last.unlink()

    def save(self, path: Path, state: TrainingState) -> None:
        """Write the state of a run. Raises NonFiniteLoss if a parameter of a module in it is not finite."""
        for name, part in state.parts.items():
            if isinstance(part, Module):
                require_finite_weights(name, part)
        state.save(path)
        if path == self.last:
            self._saved = state.epoch, state.batch

    def _try(self, path: Path, state: TrainingState) -> bool:
        try:
            self.save(path, state)
        except OSError as error:
            warnings.warn(f"fit: {path} was not written, and stays as it was: {error}", RuntimeWarning, stacklevel=4)
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """The figure of `best.npz`."""
        return {"best_figure": self.best_figure}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        best = check.entries("Checkpoints", "state", state, ("best_figure",))["best_figure"]
        self.best_figure = best if best is None else check.number("Checkpoints", "best_figure", best)


def start_run(state: TrainingState, saver: Checkpoints | None, resume: bool | str | os.PathLike[str]) -> None:
    """Load the state to go on from, if any, and write the first checkpoint, if there are any."""
    if saver is not None:
        saver.start(state, resume)
    elif resume is True:
        raise ValueError("fit: resume must be a path unless there are checkpoints, but got True")
    elif resume:
        state.load(resume)


def require_finite_weights(name: str, model: Module) -> None:
    """Raise NonFiniteLoss if a parameter holds NaN or an infinity."""
    for path, parameter in model.named_parameters():
        if not isfinite(parameter.detach()).all().item():
            raise NonFiniteLoss(
                f"fit: the weights must be finite before they are saved, but got NaN or infinity in {name}.{path}; "
                "the earlier checkpoint stays; lower the learning rate or clip the gradients (clip_norm=1)"
            )
