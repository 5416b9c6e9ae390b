"""The training of a run: what `needle.training.fit` needs, what the user sees of it, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cli
import errors
import ranks
from needle import optim
from needle.distributed import WorkerDied
from needle.optim import ExponentialMovingAverage
from needle.training import Checkpoints, EarlyStopping, NonFiniteLoss, StopOnSignal, TrainingState, choose_workers, fit
from run_folder import RunFolder
from runs import Run, load_weights, report, test_figures
from tasks import TASKS, Task

__all__ = ["Row", "train"]

Row = dict[str, float]


def train(
    script: str,
    arguments: Sequence[str] | None,
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    prepare: Callable[[argparse.Namespace], Run],
) -> list[Row]:
    """Train as the command line says, into the folder of --out or --resume if there is one; returns one row per epoch.

    Shows a line for each epoch, and writes metrics.csv, checkpoints and at the end the report. Ctrl-C and SIGTERM end
    the training after the current step, with status 130 and 143. A loss that is not finite ends it with status 2.
    """
    with ranks.joined(script, arguments):
        options = ranks.by_first(script, lambda: parse(arguments))
        with errors.interruptible():
            run = ranks.by_all(script, lambda: prepare(options))
            ranks.by_all(script, lambda: ranks.check_alike(run.data))
            return _train(run)


def _train(run: Run) -> list[Row]:
    """Train a run, and tell how it ends."""
    path = run.options.resume or run.options.out
    folder = RunFolder(path) if path is not None and ranks.is_first() else None
    lines = Lines(run, folder)
    with errors.interruptible(lines.so_far, lines.advice), folder or contextlib.nullcontext():
        with StopOnSignal() as stop, _short_warnings(run.script):
            _fit(run, folder, lines, stop)
        signal = ranks.by_first(run.script, lambda: stop.signal)
        if not signal and len(lines.rows) < run.options.epochs:
            epochs = f"{run.options.patience} epoch{'s' * (run.options.patience > 1)}"
            print(f"no progress in {epochs}: ended{lines.so_far()}", flush=True)
        if signal and ranks.is_first():
            errors.show(f"stopped{lines.so_far()}{lines.advice()}")
        with _short_warnings(run.script):
            _finish(run, folder, lines)
    if signal:
        raise ranks.AllLeave(128 + signal)
    return lines.rows


def _optimizer(run: Run) -> tuple[optim.Optimizer, optim.lr_scheduler.LRScheduler | None]:
    """The optimizer and its schedule, once the options fit the run."""
    run.check()
    optimizer = cli.make_optimizer(run.model, run.options)
    return optimizer, cli.make_scheduler(optimizer, run.options, len(run.train))


def _open(folder: RunFolder | None, run: Run) -> None:
    """Make the folder of a run, or open that of one to resume."""
    if folder is not None:
        folder.resume(run.config()) if run.options.resume else folder.create(run.config())


def _fit(run: Run, folder: RunFolder | None, lines: Lines, stop: StopOnSignal) -> None:
    """Make the folder, the optimizer and its schedule, and train until the end or the stop."""
    options, task = run.options, TASKS[run.task]
    try:
        optimizer, scheduler = ranks.by_all(run.script, lambda: _optimizer(run))
        with errors.user_errors(run.script, until=lambda: lines.has_begun):
            loss_fn, metrics = task.loss(options.label_smoothing), task.metrics(len(run.classes))
            forward = run.forward or task.forward
            if options.workers == "auto":
                choice = choose_workers(run.model, loss_fn, optimizer, run.train, metrics=metrics, forward=forward)
                options.workers, lines.choice = choice.workers, choice.reason
            ranks.by_first(run.script, lambda: _open(folder, run))
            history = fit(
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
                compression=options.compress,
            )
        lines.rows = [public_row(run, row) for row in history]
    except WorkerDied as error:
        errors.leave(f"stopped{lines.so_far()}: {errors.one_line(error)}{lines.advice()}", 2)
    except NonFiniteLoss as error:  # on all ranks, of which one tells
        if not ranks.is_first():
            raise SystemExit(2) from None
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
        self.state: TrainingState | None = None  # None until training starts, and on ranks after the first
        self.choice = ""  # of --workers auto, and why
        self.launcher = ranks.launcher()
        self.where = "" if ranks.is_first() else f" on {ranks.named()}"

    @property
    def has_begun(self) -> bool:
        """Whether errors are no longer the user's; those of one rank alone never are."""
        return self.state is not None or bool(self.where)

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
            kind = "rank" if self.launcher else "worker"
            print(f"{state.workers} {kind}{'s' * (state.workers > 1)}{self.choice and f': {self.choice}'}", flush=True)
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
            return self.where
        batches = f" and {self.state.batch} of {len(self.run.train)} batches" if self.state.batch else ""
        return f" after {self.state.epoch} of {self.run.options.epochs} epochs{batches}"

    def advice(self) -> str:
        """How to go on, or that there is nothing to go on from."""
        if self.state is None:
            return ""
        if self.folder is None:
            return "; nothing was saved, since there was no --out RUN"
        flag = "--distributed " * bool(self.launcher)
        script = f"apps/{self.run.script}.py"
        return f"; to go on: {self.launcher}python {script} {flag}--resume {shlex.quote(str(self.folder.path))}"


@contextlib.contextmanager
def _short_warnings(script: str) -> Iterator[None]:
    """Show warnings in one line, on rank 0; NumPy's, of infinities and NaNs, not at all: the loss tells of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "fit: ", RuntimeWarning)
        warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
        if not ranks.is_first():
            warnings.simplefilter("ignore")
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

    def take() -> int:
        return lines.kept_epoch() if folder is None else load_weights(run.model, folder.path)

    epoch = ranks.by_first(run.script, take)
    if run.validation is not None:
        print(f"after epoch {epoch}: {TASKS[run.task].test_line(test_figures(run))}", flush=True)
    if folder is not None:
        report(run, folder.path, folder.config, lines.rows, f"ended{lines.so_far()}", epoch)
        print(f"see {folder.path / 'report.html'}", flush=True)
