"""Train a small convolutional network on handwritten digits, MNIST or Fashion-MNIST.

    python apps/train.py                                            # the digits that come with needle
    python apps/train.py --dataset fashion-mnist --data FOLDER      # the four IDX files, plain or gzipped

Prints one line per epoch: mean loss and accuracy while training, accuracy on the test set, and images per second; with
--out these figures also go to metrics.csv. The same seed reproduces the same numbers on the same machine. plot_run.py
draws such a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cli
import errors
from models import TinyCNN
from needle import nn, optim
from needle.data import DataLoader, DigitsDataset, IDXDataset, ImageDataset
from training import Images, Metrics, Row, fit

COLUMNS = ("epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second")
LINE = (
    "epoch {epoch:2}: loss {loss:.4f}, train accuracy {train_accuracy:.2%}, "
    "test accuracy {test_accuracy:.2%}, {images_per_second:,.0f} images/s"
)


def load(folder: Path | None) -> tuple[ImageDataset, ImageDataset]:
    """The training set and the test set: the IDX files of `folder`, or the digits if it is None.

    Raises ValueError if their images differ in size.
    """
    if folder is None:
        return DigitsDataset(train=True), DigitsDataset(train=False)
    sets = IDXDataset(folder, train=True), IDXDataset(folder, train=False)
    (height, width), (test_height, test_width) = (dataset.arrays[0].shape[2:] for dataset in sets)
    if (height, width) != (test_height, test_width):
        raise ValueError(
            "training and test images must agree in size, "
            f"but those in {folder} are {height}x{width} and {test_height}x{test_width}"
        )
    return sets


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    _, rows = run(parse(arguments))
    return rows


def run(options: argparse.Namespace) -> tuple[TinyCNN, list[Row]]:
    """Train as the options say; returns the model and one row of figures per epoch."""
    metrics = Metrics(COLUMNS, LINE)
    with errors.interruptible(lambda: metrics.progress(options.epochs)):
        with errors.user_errors("train"):
            device = cli.start(options.seed, options.device)
            train_set, test_set = load(options.data)
            height, width = train_set.arrays[0].shape[2:]
            classes = 1 + max(int(dataset.arrays[1].max()) for dataset in (train_set, test_set))
            model = TinyCNN((height, width), classes, device=device)
            optimizer = optim.Adam(model.parameters(), lr=options.lr)
            metrics.write_to(options.out)
        train = Images(DataLoader(train_set, options.batch_size, shuffle=True, prefetch=2, device=device))
        test = Images(DataLoader(test_set, 256, prefetch=2, device=device))
        print(f"{options.dataset}: {len(train_set)} training and {len(test_set)} test images of {height}x{width}")
        print(f"TinyCNN with {cli.count_parameters(model):,} parameters on {device}", flush=True)
        fit(model, train, test, nn.CrossEntropyLoss(), optimizer, metrics, options.epochs)
    return model, metrics.rows


def parse(arguments: Sequence[str] | None, parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The options of the command line, checked; `parser` may have further arguments."""
    parser = parser or argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--dataset", choices=("digits", "mnist", "fashion-mnist"), default="digits", help="default: %(default)s"
    )
    parser.add_argument("--data", type=Path, help="folder of the four IDX files (for mnist and fashion-mnist)")
    parser.add_argument("--epochs", type=int, help="default: 15 for digits, 5 for the others")
    parser.add_argument("--lr", type=float, default=0.002, help="learning rate of Adam (default: %(default)s)")
    cli.add_run_options(parser, batch_size=64)
    options = parser.parse_args(arguments)
    if options.dataset == "digits" and options.data is not None:
        parser.error("--data is for mnist and fashion-mnist; the digits come with needle")
    if options.dataset != "digits" and options.data is None:
        parser.error(f"--dataset {options.dataset} needs --data, the folder of its four IDX files")
    if options.epochs is None:
        options.epochs = 15 if options.dataset == "digits" else 5
    cli.check_numbers(parser, options, "epochs", "batch_size", "lr")
    return options


if __name__ == "__main__":
    main()
