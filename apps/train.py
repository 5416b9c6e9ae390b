"""Train a tiny convolutional network on handwritten digits, MNIST or Fashion-MNIST.

    python apps/train.py                                            # the digits that come with needle
    python apps/train.py --dataset fashion-mnist --data FOLDER      # the four IDX files, plain or gzipped

One line an epoch: the mean loss and the accuracy while training, the accuracy on the test set afterwards, and images
per second. The same seed gives the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import needle as ndl
from needle import nn, optim
from needle.data import DataLoader, DigitsDataset, IDXDataset

if __package__:  # imported as apps.train; otherwise the folder apps is on sys.path
    from apps import training
else:
    import training

DATASETS = ("digits", "mnist", "fashion-mnist")
COLUMNS = ("epoch", "loss", "train_accuracy", "test_accuracy", "images_per_second")


class TinyCNN(nn.Module):
    """Three convolutions and a linear map: (N, 1, side, side) -> (N, classes)."""

    def __init__(self, side, classes=10, device=None, dtype="float32"):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, **options),
            nn.BatchNorm2d(16, **options),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, **options),
            nn.BatchNorm2d(32, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, **options),
            nn.BatchNorm2d(64, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classify = nn.Linear(64 * (side // 4) ** 2, classes, **options)

    def forward(self, x):
        return self.classify(self.features(x))


def load(name, folder):
    """The training and the test set."""
    if name == "digits":
        return DigitsDataset(train=True), DigitsDataset(train=False)
    return IDXDataset(folder, train=True), IDXDataset(folder, train=False)


def train_epoch(model, loader, loss_fn, optimizer):
    """One pass over the training set with steps: the mean loss and the accuracy of the logits before each step."""
    model.train()
    loss_sum, correct, count = 0.0, 0, 0
    with training.progress(loader) as bar:
        for images, labels in bar:
            logits = model(images)
            loss = loss_fn(logits, labels)
            optimizer.reset_grad()
            loss.backward(create_graph=False)
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += hits(logits, labels)
            count += len(labels)
            bar.set_postfix(loss=f"{loss_sum / count:.4f}")
    return loss_sum / count, correct / count


def evaluate(model, loader):
    """The accuracy on a test set."""
    model.eval()
    with ndl.no_grad():
        counts = [(hits(model(images), labels), len(labels)) for images, labels in loader]
    correct, total = map(sum, zip(*counts, strict=True))
    return correct / total


def hits(logits, labels):
    """How many rows have their largest logit at their label."""
    return int(ndl.equal(logits.argmax(1), labels).sum().item())


def main(arguments=None):
    """Run the script; returns the rows that it measured."""
    options = parse(arguments)
    metrics = Metrics()
    with training.interruptible(metrics.rows, options.epochs):
        with training.user_errors("train"):
            device = training.start(options.seed, options.device)
            train_set, test_set = load(options.dataset, options.data)
            side = train_set[0][0].shape[-1]
            model = TinyCNN(side, device=device)
            optimizer = optim.Adam(model.parameters(), lr=options.lr)
            metrics.write_to(options.out)
        train_loader = DataLoader(train_set, options.batch_size, shuffle=True, prefetch=2, device=device)
        test_loader = DataLoader(test_set, 256, prefetch=2, device=device)
        loss_fn = nn.CrossEntropyLoss()
        print(f"{options.dataset}: {len(train_set)} training and {len(test_set)} test images of {side}x{side}")
        print(f"TinyCNN with {training.size(model):,} parameters on {device}", flush=True)
        for epoch in range(1, options.epochs + 1):
            start = time.perf_counter()
            loss, train_accuracy = train_epoch(model, train_loader, loss_fn, optimizer)
            speed = len(train_set) / (time.perf_counter() - start)
            metrics.add(epoch, loss, train_accuracy, evaluate(model, test_loader), speed)
    return metrics.rows


class Metrics:
    """The measured rows: printed, and with a folder also written to its metrics.csv as they come."""

    def __init__(self):
        self.rows = []
        self.path = None

    def write_to(self, folder):
        """Begin metrics.csv in a folder, which is made where it is missing; None: write nothing."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / "metrics.csv"
            with open(self.path, "w", newline="") as file:
                csv.writer(file).writerow(COLUMNS)

    def add(self, epoch, loss, train_accuracy, test_accuracy, speed):
        """Take the figures of one epoch; what has been printed is in the file already."""
        row = dict(zip(COLUMNS, (epoch, loss, train_accuracy, test_accuracy, speed), strict=True))
        if self.path is not None:
            with open(self.path, "a", newline="") as file:
                csv.writer(file).writerow(row.values())
        self.rows.append(row)
        print(
            f"epoch {epoch:2}: loss {loss:.4f}, train accuracy {train_accuracy:.2%}, "
            f"test accuracy {test_accuracy:.2%}, {speed:,.0f} images/s",
            flush=True,
        )


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=DATASETS, default="digits")
    parser.add_argument("--data", type=Path, help="folder of the four IDX files (for mnist and fashion-mnist)")
    parser.add_argument("--epochs", type=int, help="default: 15 for digits, 5 for the others")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.002, help="learning rate of Adam (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder for metrics.csv")
    options = parser.parse_args(arguments)
    if options.dataset == "digits" and options.data is not None:
        parser.error("--data is for mnist and fashion-mnist; the digits come with needle")
    if options.dataset != "digits" and options.data is None:
        parser.error(f"--dataset {options.dataset} needs --data, the folder of its four IDX files")
    if options.epochs is None:
        options.epochs = 15 if options.dataset == "digits" else 5
    if options.epochs < 1 or options.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    return options


if __name__ == "__main__":
    main()
