"""Train ResNet9 on CIFAR-10, the course's training of an image classifier.

    python apps/train_cifar10.py --data FOLDER      # data_batch_1 to data_batch_5 and test_batch
    python apps/train_cifar10.py                    # small synthetic data, written and read in the same format

Prints one line per epoch: mean loss and accuracy while training, then accuracy on the test set, and images per second.
The same seed gives the same numbers on the same machine. `train.py --dataset cifar10` has other networks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cli
import errors
import image_sets
import synthetic
from image_run import image_run
from runs import Run
from training import Row, train

RATES = {"adam": 0.001, "adamw": 0.001, "sgd": 0.1}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    return train("train_cifar10", arguments, parse, prepare)


def prepare(options: argparse.Namespace) -> Run:
    """The images, the loaders and the network that the options name; raises errors of the user."""
    device = cli.start(options.seed, options.device)
    return image_run("train_cifar10", options, load(options, options.data), "resnet9", device)


def load(options: argparse.Namespace, folder: Path | None) -> image_sets.Splits:
    """The images of `folder`, or synthetic ones if it is None."""
    chosen = {name: getattr(options, name) for name in ("validation", "augment", "seed")}
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            synthetic.write_cifar10(Path(temporary))
            title = "synthetic stand-in for CIFAR-10 (--data FOLDER reads the real one)"
            return image_sets.load("cifar10", Path(temporary), title=title, **chosen)
    images = image_sets.load("cifar10", folder, title="CIFAR-10", **chosen)
    if sum(images.counts.values()) == 60_000:
        return images
    return replace(images, name="a part of CIFAR-10 (it has 50000 and 10000 images)")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's six files (default: small synthetic data)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--augment", action="store_true", help="mirror and shift the training images at random")
    cli.add_run_options(parser, batch_size=128)
    cli.add_training_options(parser, RATES, weight_decay=0.001)
    return cli.parse(parser, arguments, "train_cifar10", RATES)


if __name__ == "__main__":
    main()
