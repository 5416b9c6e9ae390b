"""The layers of a network: outputs, parameters, multiply-adds, and the memory of a training step.

python apps/summary.py runs/first                                # of a run
python apps/summary.py --model lenet --dataset mnist             # before one
python apps/summary.py --model unet --shape 3 64 64              # for images of channels, height and width
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import errors
import image_sets
import needle as ndl
import ranks
from image_run import task_of
from models import MODELS
from runs import open_run


def main(arguments: Sequence[str] | None = None) -> ndl.Summary:
    """Run the script; returns what it prints."""
    ranks.alone("summary")
    options = parse(arguments)
    with errors.interruptible(), errors.user_errors("summary"):
        if options.run is not None:
            run = open_run(options.run)
            model, shape = run.model, run.input_shape
        else:
            image = tuple(options.shape or image_sets.SHAPES[options.dataset or "digits"])
            classes = options.classes or (2 if task_of(options.model) == "segmentation" else 10)
            model, shape = MODELS[options.model](image, classes), (options.batch_size or 64, *image)
        found = ndl.summary(model, shape)
        print(f"for a batch {'x'.join(map(str, shape))}\n{found}")
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?", help="the folder of a run")
    parser.add_argument("--model", choices=MODELS, help="a network, if there is no run")
    parser.add_argument("--dataset", choices=image_sets.SHAPES, help="default: digits")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="of an image")
    parser.add_argument("--classes", type=int, help="default: 2 for unet, 10 for others")
    parser.add_argument("--batch-size", type=int, help="default: 64")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.model is None):
        parser.error("either RUN or --model must be given")
    given = {name: getattr(options, name) for name in ("dataset", "shape", "classes", "batch_size")}
    for name, value in given.items():
        if options.run is not None and value is not None:
            parser.error(f"--{name.replace('_', '-')} is for --model, but RUN is {options.run}")
    numbers = {"classes": [options.classes], "batch-size": [options.batch_size], "shape": options.shape or []}
    for name, values in numbers.items():
        for value in values:
            if value is not None and value < 1:
                parser.error(f"--{name} must be at least 1, but got {value}")
    return options


if __name__ == "__main__":
    main()
