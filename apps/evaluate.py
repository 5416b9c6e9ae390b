"""Test a trained network: the figures of its run's test set, and for classes what it takes for what.

    python apps/evaluate.py runs/first              # the weights of the best epoch
    python apps/evaluate.py runs/first --last       # those of the last step
    python apps/evaluate.py runs/first --report     # and write the report again

The test set is that of the run, and others are refused; --data says where its files lie now.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import errors
import ranks
from needle.metrics import ConfusionMatrix, precision_recall_f1
from run_folder import read_config, read_metrics
from runs import load_weights, open_run, report, test_figures
from tasks import TASKS

LARGEST = 20  # classes of a confusion matrix that is printed


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the script; returns the figures."""
    ranks.alone("evaluate")
    options = parse(arguments)
    with errors.interruptible(), errors.user_errors("evaluate"):
        run = open_run(options.run, options.data)
        epoch = load_weights(run.model, options.run, "last" if options.last else "best")
        has_classes = run.task in ("classification", "segmentation")
        metrics = {"confusion": ConfusionMatrix(len(run.classes))} if has_classes else {}
        figures = test_figures(run, **metrics)
        print(run.data_line)
        print(f"{run.title} of {options.run} after epoch {epoch}: {TASKS[run.task].test_line(figures)}")
        if has_classes:
            print_classes(run.classes, figures["confusion"])
        if options.report:
            rows = read_metrics(options.run)
            status = f"trained for {len(rows)} of {run.options.epochs} epochs"
            report(run, options.run, read_config(options.run), rows, status, epoch)
            print(f"\nsee {options.run / 'report.html'}")
    return figures


def print_classes(names: Sequence[str], matrix: np.ndarray) -> None:
    """Show precision, recall and F1 of each class, and the confusion matrix unless it is large."""
    width = max(map(len, (*names, "class")))
    print(f"\n{'class':>{width}}  precision   recall       F1   number")
    columns = (*precision_recall_f1(matrix), matrix.sum(1))
    for name, precision, recall, f1, number in zip(names, *columns, strict=True):
        print(f"{name:>{width}}  {precision:>9.2%}  {recall:>7.2%}  {f1:>7.2%}  {number:>7,}")
    if len(names) <= LARGEST:
        cell = max(width if width <= 5 else 4, len(f"{matrix.max()}"))
        print(f"\n{'':>{width}}  predicted\n{'':>{width}}  {' '.join(f'{name[:cell]:>{cell}}' for name in names)}")
        for name, row in zip(names, matrix.tolist(), strict=True):
            print(f"{name:>{width}}  {' '.join(f'{count:>{cell}}' for count in row)}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--last", action="store_true", help="test the weights of the last step, not of the best epoch")
    parser.add_argument("--report", action="store_true", help="write the report of the run again")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the files of the data lie now")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
