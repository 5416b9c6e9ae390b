"""Runs: what a script makes of its options, and what can be done with a trained one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import cli
import needle as ndl
import results
from needle import nn
from needle.training import evaluate
from report import write_report
from run_folder import check_data, read_config
from tasks import TASKS

__all__ = ["Run", "load_weights", "open_run", "outputs", "report", "test_figures"]

SCRIPTS = ("train", "train_cifar10", "train_ptb")
OF_A_COMMAND = ("out", "resume", "distributed")  # options that say nothing of the run


@dataclass
class Run:
    """What a script makes of its options: a network, a task, loaders, and what config.json says of them.

    `validation` is None if no part of the training set is held out: then the test set takes its place. `data` are facts
    by which a resumed run recognizes its data; `facts` are others.
    """

    script: str
    options: argparse.Namespace
    task: str
    title: str
    model: nn.Module
    train: Any
    validation: Any
    test: Any
    unit: str
    input_shape: tuple[int, ...]  # of a batch
    classes: tuple[str, ...]
    data: dict[str, Any]
    data_line: str
    facts: dict[str, Any] = field(default_factory=dict)
    forward: Any = None

    @property
    def split(self) -> str:
        """What epochs are compared by: "validation" or "test"."""
        return "test" if self.validation is None else "validation"

    @property
    def held_out(self) -> Any:
        """The loader of that."""
        return self.test if self.validation is None else self.validation

    def check(self) -> None:
        """Raise ValueError if a choice would be made by the test set."""
        for name, is_used in (("--patience", self.options.patience), ("plateau", self.options.schedule == "plateau")):
            if is_used and self.validation is None:
                raise ValueError(f"{name} needs --validation FRACTION, since the test set is not for choosing")

    def config(self) -> dict[str, Any]:
        """What config.json says of the run."""
        chosen = {name: value for name, value in vars(self.options).items() if name not in OF_A_COMMAND}
        settings = {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in chosen.items()}
        facts = {"task": self.task, "model": self.title, "parameters": cli.count_parameters(self.model)}
        facts |= {"classes": list(self.classes), "unit": self.unit, **self.facts}
        return {"script": self.script, "settings": settings, "data": self.data, **facts}


# ---- a run in a folder -----------------------------------------------------------------------------------------------


def open_run(folder: Path, data: Path | None = None) -> Run:
    """The run in a folder, with its data and its network as they were at first; `data` is where its files lie now.

    Raises OSError or ValueError if the folder holds no run, or the data are missing or others.
    """
    config = read_config(folder)
    script = config["script"]
    if script not in SCRIPTS:
        raise ValueError(f"{folder} must hold a run of {', '.join(SCRIPTS)}, but it is one of {script!r}")
    module = import_module(script)
    run: Run = module.prepare(module.parse(["--resume", str(folder), *(["--data", str(data)] if data else [])]))
    check_data(folder, config, run.config())
    return run


def load_weights(model: nn.Module, folder: Path, name: str = "best") -> int:
    """Give the model the weights of a checkpoint, averaged ones if there are; of last.npz if there is no best.npz yet.

    Returns the number of complete epochs. Raises OSError or ValueError if the file is missing, damaged, or of another
    network.
    """
    path = folder / f"{name}.npz"
    path = path if path.exists() else folder / "last.npz"
    state = ndl.load(path)
    try:
        averages = state["ema"]["averages"] if "ema" in state else {}
        model.load_state_dict({**state["model"], **averages})
        return int(state["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a checkpoint of this network, but: {error}") from error


# ---- the test --------------------------------------------------------------------------------------------------------


def test_figures(run: Run, **metrics: Any) -> dict[str, Any]:
    """The loss, without label smoothing, and the figures of the test set, and those of further metrics."""
    task = TASKS[run.task]
    metrics |= task.metrics(len(run.classes))
    return task.complete(evaluate(run.model, task.loss(0.0), run.test, metrics, forward=run.forward or task.forward))


def outputs(run: Run) -> Iterator[tuple[ndl.Tensor, ndl.Tensor, ndl.Tensor]]:
    """Inputs as the network sees them, its outputs and the targets, for each batch of the test set."""
    run.model.eval()
    with ndl.no_grad():
        for batch in run.test:
            inputs, targets = TASKS[run.task].prepare(batch, False)
            yield inputs, run.model(inputs), targets


RESULTS = {
    "classification": lambda run: results.classification(outputs(run), len(run.classes)),
    "segmentation": lambda run: results.segmentation(outputs(run), len(run.classes)),
    "reconstruction": lambda run: results.reconstruction(outputs(run)),
    "language": lambda run: None,
}


def report(
    run: Run, folder: Path, config: Mapping[str, Any], rows: Sequence[Mapping[str, float]], status: str, epoch: int
) -> None:
    """Write the report of a run whose model has the weights after `epoch`."""
    write_report(
        folder,
        config=config,
        rows=rows,
        status=status,
        best=epoch or None,
        summary=str(ndl.summary(run.model, run.input_shape)),
        filters=results.first_filters(run.model),
        results=RESULTS[run.task](run),
        results_of=f"{run.data['test']:,} {run.unit} of the test set, with the weights after epoch {epoch}.",
    )
