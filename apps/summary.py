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
from image_run import task_of
from models import MODELS
from runs import open_run


def main(arguments: Sequence[str] | None = None) -> ndl.Summary:
    """Run the script; returns what it prints."""
    options = parse(arguments)
    with errors.interruptible(), errors.user_errors("summary"):
        if options.run is not None:
            run = open_run(options.run)
            model, shape = run.model, run.input_shape
        else:
            image = tuple(options.shape or image_sets.SHAPES[options.dataset])
            classes = options.classes or (2 if task_of(options.model) == "segmentation" else 10)
            model, shape = MODELS[options.model](image, classes), (options.batch_size, *image)
        found = ndl.summary(model, shape)
        print(f"for a batch {'x'.join(map(str, shape))}\n{found}")
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?", help="the folder of a run")
    parser.add_argument("--model", choices=MODELS, help="a network, if there is no run")
    parser.add_argument("--dataset", choices=image_sets.SHAPES, default="digits", help="default: %(default)s")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="of an image")
    parser.add_argument("--classes", type=int, help="default: 2 for unet, 10 for others")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.model is None):
        parser.error("either RUN or --model must be given")
    sizes = {"shape": options.shape or [1], "classes": [options.classes or 1], "batch-size": [options.batch_size]}
    for name, values in sizes.items():
        if min(values) < 1:
            parser.error(f"--{name} must be at least 1, but got {min(values)}")
    return options


if __name__ == "__main__":
    main()
