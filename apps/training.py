"""The training of a run: what `needle.training.fit` needs, what the user sees of it, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import cli
import errors
from needle.distributed import WorkerDied
from needle.optim import ExponentialMovingAverage
from needle.training import Checkpoints, EarlyStopping, NonFiniteLoss, StopOnSignal, TrainingState, choose_workers, fit
from run_folder import RunFolder
from runs import Run, load_weights, report, test_figures
from tasks import TASKS, Task

__all__ = ["Row", "train"]

Row = dict[str, float]


def train(run: Run) -> list[Row]:
    """Train as the options say, into the folder of --out or --resume if there is one; returns one row per epoch.

    Shows a line for each epoch, and writes metrics.csv, checkpoints and at the end the report. Ctrl-C and SIGTERM end
    the training after the current step, with status 130 and 143. A loss that is not finite ends it with status 2.
    """
    path = run.options.resume or run.options.out
    folder = None if path is None else RunFolder(path)
    lines = Lines(run, folder)
    with errors.interruptible(lines.so_far, lines.advice), folder or contextlib.nullcontext():
        with StopOnSignal() as stop, _short_warnings(run.script):
            _fit(run, folder, lines, stop)
        if not stop.signal and len(lines.rows) < run.options.epochs:
            epochs = f"{run.options.patience} epoch{'s' * (run.options.patience > 1)}"
            print(f"no progress in {epochs}: ended{lines.so_far()}", flush=True)
        if stop.signal:
            errors.show(f"stopped{lines.so_far()}{lines.advice()}")
        with _short_warnings(run.script):
            _finish(run, folder, lines)
    if stop.signal:
        raise SystemExit(128 + stop.signal)
    return lines.rows


def _fit(run: Run, folder: RunFolder | None, lines: Lines, stop: StopOnSignal) -> None:
    """Make the folder, the optimizer and its schedule, and train until the end or the stop."""
    options, task = run.options, TASKS[run.task]
    try:
        with errors.user_errors(run.script, until=lambda: lines.state is not None):
            run.check()
            optimizer = cli.make_optimizer(run.model, options)
            scheduler = cli.make_scheduler(optimizer, options, len(run.train))
            loss_fn, metrics = task.loss(options.label_smoothing), task.metrics(len(run.classes))
            forward = run.forward or task.forward
            if options.workers == "auto":
                choice = choose_workers(run.model, loss_fn, optimizer, run.train, metrics=metrics, forward=forward)
                options.workers, lines.choice = choice.workers, choice.reason
            if folder is not None:
                folder.resume(run.config()) if options.resume else folder.create(run.config())
            fit(
                run.model,
                loss_fn,
                optimizer,
                run.train,
                epochs=options.epochs,
                validation=run.held_out,
                metrics=metrics,
                forward=forward,
                scheduler=scheduler,
                schedule_by="epoch" if options.schedule == "plateau" else "step",
                accumulate=options.accumulate,
                clip_norm=options.clip,
                ema=None if options.ema is None else ExponentialMovingAverage(run.model, options.ema),
                early_stopping=_patience(options, task),
                checkpoints=None if folder is None else _checkpoints(folder.path, options.save_every, task),
                resume=_checkpoint_to_resume(options.resume) if options.resume else False,
                callbacks=[lines, stop],
                workers=options.workers,
            )
    except WorkerDied as error:
        errors.leave(f"stopped{lines.so_far()}: {errors.one_line(error)}{lines.advice()}", 2)
    except NonFiniteLoss as error:
        limit = 1 if options.clip is None else options.clip / 10
        kept = "" if folder is None else f"{lines.advice()} --clip {limit:g}"
        errors.leave(f"stopped{lines.so_far()}: {error}; here, use a smaller --lr or --clip {limit:g}{kept}", 2)


def _checkpoints(folder: Path, every: int | None, task: Task) -> Checkpoints:
    return Checkpoints(folder, every=every, monitor=task.best, mode=task.mode)


def _checkpoint_to_resume(folder: Path) -> Path | bool:
    """last.npz; or True, to begin, if the run was killed before it wrote any checkpoint."""
    return folder / "last.npz" if (folder / "last.npz").exists() or (folder / "best.npz").exists() else True


def _patience(options: argparse.Namespace, task: Task) -> EarlyStopping | None:
    if options.patience is None:
        return None
    return EarlyStopping(
        options.patience, monitor=task.best, mode=task.mode, restore_best=not (options.out or options.resume)
    )


class Lines:
    """Shows each epoch as a line, and writes metrics.csv; a callback of `fit`."""

    def __init__(self, run: Run, folder: RunFolder | None) -> None:
        self.run, self.folder, self.task = run, folder, TASKS[run.task]
        self.rows: list[Row] = []
        self.state: TrainingState | None = None  # None until training starts
        self.choice = ""  # of --workers auto, and why

    def on_start(self, state: TrainingState) -> None:
        """Say what there is, and from where the run goes on."""
        self.state = state
        self.rows = [public_row(self.run, row) for row in state.history]
        if self.folder is not None:
            self.folder.write_metrics(self.rows)
        device = next(iter(self.run.model.parameters())).device
        print(self.run.data_line)
        print(f"{self.run.title} with {cli.count_parameters(self.run.model):,} parameters on {device}", flush=True)
        if self.choice or state.workers > 1:
            print(f"{state.workers} worker{'s' * (state.workers > 1)}{self.choice and f': {self.choice}'}", flush=True)
        if self.run.options.resume:
            print(f"goes on{self.so_far()}", flush=True)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Write the rows if that is possible, then show the new one."""
        row = public_row(self.run, state.history[-1])
        self.rows.append(row)
        if self.folder is not None:
            try:
                self.folder.write_metrics(self.rows)
            except OSError as error:  # the rows are in the checkpoint, too
                errors.show(f"{self.run.script}: {errors.one_line(error)}")
        line = self.task.line(self.task.complete(state.history[-1]), self.run.split)
        print(f"epoch {state.epoch:2}: {line}, {row[f'{self.run.unit}_per_second']:,.0f} {self.run.unit}/s", flush=True)

    def kept_epoch(self) -> int:
        """The epoch whose weights the model has without a folder: the last one, or with --patience the best."""
        figures = [row[self.task.best] for row in (self.state.history if self.state else [])]
        if self.run.options.patience is None or not figures:
            return len(figures)
        return 1 + figures.index(max(figures) if self.task.mode == "max" else min(figures))

    def so_far(self) -> str:
        """How many of the epochs are complete."""
        if self.state is None:
            return ""
        batches = f" and {self.state.batch} of {len(self.run.train)} batches" if self.state.batch else ""
        return f" after {self.state.epoch} of {self.run.options.epochs} epochs{batches}"

    def advice(self) -> str:
        """How to go on, or that there is nothing to go on from."""
        if self.state is None:
            return ""
        if self.folder is None:
            return "; nothing was saved, since there was no --out RUN"
        return f"; to go on: python apps/{self.run.script}.py --resume {shlex.quote(str(self.folder.path))}"


@contextlib.contextmanager
def _short_warnings(script: str) -> Iterator[None]:
    """Show warnings in one line; NumPy's, of infinities and NaNs, not at all: the loss tells of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "fit: ", RuntimeWarning)
        warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
        warnings.showwarning = lambda message, *others: errors.show(f"{script}: {message}")
        yield


def public_row(run: Run, row: Row) -> Row:
    """A row of `fit` as the scripts show it: with derived figures, and named after what the held-out set is."""
    figures = TASKS[run.task].complete(row)
    held = {name: value for name, value in figures.items() if name.startswith("val_")}
    speed = figures.pop("items_per_second")
    last = {"lr": figures.pop("lr"), "seconds": figures.pop("seconds"), f"{run.unit}_per_second": speed}
    first = {name: value for name, value in figures.items() if name not in held}
    split = "val" if run.validation is not None else "test"
    return {**first, **{f"{split}{name.removeprefix('val')}": value for name, value in held.items()}, **last}


def _finish(run: Run, folder: RunFolder | None, lines: Lines) -> None:
    """Take the best epoch's weights, test them if that was not done after each epoch, and write the report."""
    with errors.user_errors(run.script):
        epoch = lines.kept_epoch() if folder is None else load_weights(run.model, folder.path)
    if run.validation is not None:
        print(f"after epoch {epoch}: {TASKS[run.task].test_line(test_figures(run))}", flush=True)
    if folder is not None:
        report(run, folder.path, folder.config, lines.rows, f"ended{lines.so_far()}", epoch)
        print(f"see {folder.path / 'report.html'}", flush=True)
