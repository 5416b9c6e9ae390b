"""Train a network on images: digits, MNIST, Fashion-MNIST, CIFAR-10, or a folder of pictures.

    python apps/train.py                                            # a small CNN on the digits that come with needle
    python apps/train.py --dataset fashion-mnist --data FOLDER      # the four IDX files, plain or gzipped
    python apps/train.py --dataset FOLDER --out runs/first          # pictures by class; a folder that keeps the run
    python apps/train.py --resume runs/first                        # goes on where it was stopped

Classifiers are tinycnn, lenet, resnet9 and conv1d. The autoencoder reproduces its image, and the unet finds the ink of
a noisy one. Prints one line per epoch, with figures of the training set and of the held-out one. The same seed gives
the same numbers on the same machine, also when the run is stopped and resumed in between.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cli
import errors
import image_sets
from image_run import image_run, task_of
from models import MODELS
from runs import Run
from training import Row, train

FOLDER = "folder"  # the data set of those that are named by their path: --data then says where they lie
RATES = {"adam": 0.002, "adamw": 0.002, "sgd": 0.1}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    return train("train", arguments, parse, prepare)


def prepare(options: argparse.Namespace) -> Run:
    """The images, the loaders and the network that the options name; raises errors of the user."""
    device = cli.start(options.seed, options.device)
    chosen = {name: getattr(options, name) for name in ("size", "validation", "augment", "seed")}
    name = str(options.data) if options.dataset == FOLDER else options.dataset
    images = image_sets.load(name, options.data, **chosen)
    return image_run("train", options, images, options.model, device)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="tinycnn", help="default: %(default)s")
    parser.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help=f"{', '.join(image_sets.NAMES)}, or a folder of images by class (default: %(default)s)",
    )
    data = "the files of mnist, fashion-mnist or cifar10; with --resume, where the data lie now"
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=data)
    parser.add_argument("--size", type=int, metavar="PIXELS", help="scale the images of a folder to squares")
    parser.add_argument("--epochs", type=int, help="default: 15 for digits, 5 for the others")
    parser.add_argument("--augment", action="store_true", help="shift training images, and mirror those that may be")
    cli.add_run_options(parser, batch_size=64)
    cli.add_training_options(parser, RATES, weight_decay=0.0)
    return cli.parse(parser, arguments, "train", RATES, complete)


def complete(parser: errors.Parser, options: argparse.Namespace) -> None:
    """Fill in the defaults that depend on other options, and check what fits together."""
    name = options.dataset
    is_path = name not in image_sets.NAMES and not (name == FOLDER and options.data)
    if is_path and not (name and Path(name).is_dir()):
        parser.error(f"--dataset must be {', '.join(image_sets.NAMES)} or a folder, but got {name}")
    if (name == "digits" or (is_path and not options.resume)) and options.data is not None:
        parser.error(f"--data is for {', '.join(image_sets.NAMES[1:])}, but --dataset is {name}")
    if is_path:
        options.dataset, options.data = FOLDER, Path(name).resolve()  # a run may go on elsewhere
    if name != "digits" and options.data is None:
        parser.error(f"--dataset {name} needs --data, the folder of its files")
    if options.size is not None and name in image_sets.NAMES:
        parser.error(f"--size is for folders of images, but --dataset is {name}")
    if options.epochs is None:
        options.epochs = 15 if name == "digits" else 5
    if options.label_smoothing and task_of(options.model) == "reconstruction":
        parser.error(f"--label-smoothing is for classes, but --model {options.model} has none")


if __name__ == "__main__":
    main()
