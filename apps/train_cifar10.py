"""Train ResNet9 on CIFAR-10, the course's training of an image classifier.

    python apps/train_cifar10.py --data FOLDER      # data_batch_1 to data_batch_5 and test_batch
    python apps/train_cifar10.py                    # small synthetic data, written and read in the same format

Prints one line per epoch: mean loss and accuracy while training, then on the test set, and images per second. The same
seed reproduces the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cli
import errors
import synthetic
from models import ResNet9
from needle import nn
from needle.data import CIFAR10Dataset, DataLoader, RandomCrop, RandomFlipHorizontal
from training import Images, Metrics, Row, fit

Transform = Callable[..., Any]
RATES = {"adam": 0.001, "adamw": 0.001, "sgd": 0.1}
COLUMNS = ("epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second")
LINE = (
    "epoch {epoch:2}: loss {loss:.4f}, train accuracy {train_accuracy:.2%}, test loss {test_loss:.4f}, "
    "test accuracy {test_accuracy:.2%}, {images_per_second:,.0f} images/s"
)


def load(folder: Path | None, transforms: Sequence[Transform]) -> tuple[CIFAR10Dataset, CIFAR10Dataset, str]:
    """The training set, the test set and their name: from `folder`, or synthetic data if it is None."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            synthetic.write_cifar10(Path(temporary))
            train_set, test_set, _ = load(Path(temporary), transforms)
        return train_set, test_set, "synthetic stand-in for CIFAR-10 (--data FOLDER reads the real one)"
    train_set, test_set = CIFAR10Dataset(folder, train=True, transforms=transforms), CIFAR10Dataset(folder, train=False)
    whole = (len(train_set), len(test_set)) == (50_000, 10_000)
    return train_set, test_set, "CIFAR-10" if whole else "a part of CIFAR-10 (it has 50000 and 10000 images)"


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    options = parse(arguments)
    metrics = Metrics(COLUMNS, LINE)
    with errors.interruptible(lambda: metrics.progress(options.epochs)):
        with errors.user_errors("train_cifar10"):
            device = cli.start(options.seed, options.device)
            transforms: list[Transform] = [RandomFlipHorizontal(), RandomCrop(4)] if options.augment else []
            train_set, test_set, name = load(options.data, transforms)
            if 1 in (options.batch_size, len(train_set) % options.batch_size):
                raise ValueError(
                    "batch normalization needs at least 2 images in every batch, "
                    f"but --batch-size {options.batch_size} of {len(train_set)} leaves a batch of 1"
                )
            model = ResNet9(device=device)
            optimizer = cli.make_optimizer(model, options)
            metrics.write_to(options.out)
        train = Images(DataLoader(train_set, options.batch_size, shuffle=True, device=device))
        test = Images(DataLoader(test_set, options.batch_size, device=device))
        print(f"{name}: {len(train_set)} training and {len(test_set)} test images of 3x32x32")
        print(f"ResNet9 with {cli.count_parameters(model):,} parameters on {device}", flush=True)
        return fit(model, train, test, nn.SoftmaxLoss(), optimizer, metrics, options.epochs, options.clip)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's six files (default: small synthetic data)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--augment", action="store_true", help="mirror and shift the training images at random")
    cli.add_run_options(parser, batch_size=128)
    cli.add_optimizer_options(parser, RATES, weight_decay=0.001)
    options = parser.parse_args(arguments)
    cli.check_numbers(parser, options, "epochs", "batch_size")
    cli.check_optimizer(parser, options, RATES)
    return options


if __name__ == "__main__":
    main()
