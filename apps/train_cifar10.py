"""Train ResNet9 on CIFAR-10, the course's training of an image classifier.

    python apps/train_cifar10.py --data FOLDER      # data_batch_1 to data_batch_5 and test_batch
    python apps/train_cifar10.py                    # a small stand-in, written and read in the same format

One line an epoch: mean loss and accuracy while training, then on the test set, and images per second. The same seed
gives the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np

from needle import nn
from needle.data import CIFAR10Dataset, DataLoader, RandomCrop, RandomFlipHorizontal

if __package__:  # imported as apps.train_cifar10; otherwise the folder apps is on sys.path
    from apps import training
    from apps.models import ResNet9
    from apps.simple_ml import class_outputs, pass_over
else:
    import training
    from models import ResNet9
    from simple_ml import class_outputs, pass_over

LR = {"adam": 0.001, "adamw": 0.001, "sgd": 0.1}
PER_FILE = 100  # images in each file of the stand-in


def write_stand_in(folder):
    """Six files in CIFAR-10's format: of each class images with one pattern of colours, shifted and noisy."""
    draw = np.random.default_rng(0)
    patterns = draw.integers(64, 192, (10, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = draw.permutation(np.arange(PER_FILE) % 10)
        shifts = draw.integers(-4, 5, (PER_FILE, 2))
        images = [np.roll(patterns[label], shift, (1, 2)) for label, shift in zip(labels, shifts, strict=True)]
        noisy = np.clip(images + draw.normal(0, 40, (PER_FILE, 3, 32, 32)), 0, 255)
        content = {b"data": noisy.reshape(PER_FILE, -1).astype(np.uint8), b"labels": labels.tolist()}
        with open(Path(folder) / name, "wb") as file:
            pickle.dump(content, file, protocol=2)


def load(folder, transforms):
    """The training and the test set, and what they are: of a folder, or without one of the stand-in."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            write_stand_in(made)
            return *load(made, transforms)[:2], "synthetic stand-in for CIFAR-10 (--data FOLDER reads the real one)"
    train_set = CIFAR10Dataset(folder, train=True, transforms=transforms)
    return train_set, CIFAR10Dataset(folder, train=False), "CIFAR-10"


def main(arguments=None):
    """Run the script; returns the rows that it measured."""
    options = parse(arguments)
    rows = []
    with training.interruptible(rows, options.epochs):
        with training.user_errors("train_cifar10"):
            device = training.start(options.seed, options.device)
            transforms = [RandomFlipHorizontal(), RandomCrop(4)] if options.augment else []
            train_set, test_set, name = load(options.data, transforms)
            model = ResNet9(device=device)
            optimizer = training.make_optimizer(model, options)
        train_loader = DataLoader(train_set, options.batch_size, shuffle=True, device=device)
        test_loader = DataLoader(test_set, options.batch_size, device=device)
        loss_fn = nn.SoftmaxLoss()
        print(f"{name}: {len(train_set)} training and {len(test_set)} test images of 3x32x32")
        print(f"ResNet9 with {training.size(model):,} parameters on {device}", flush=True)
        for epoch in range(1, options.epochs + 1):
            start = time.perf_counter()
            outputs = training.progress(class_outputs(train_loader, model), len(train_loader))
            accuracy, loss = pass_over(outputs, model, loss_fn, optimizer, options.clip)
            speed = len(train_set) / (time.perf_counter() - start)
            test_accuracy, test_loss = pass_over(class_outputs(test_loader, model), model, loss_fn)
            rows.append({
                "epoch": epoch,
                "loss": loss,
                "train_accuracy": accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "images_per_second": speed,
            })  # fmt: skip
            print(
                f"epoch {epoch:2}: loss {loss:.4f}, train accuracy {accuracy:.2%}, "
                f"test loss {test_loss:.4f}, test accuracy {test_accuracy:.2%}, {speed:,.0f} images/s",
                flush=True,
            )
    return rows


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    training.add_options(parser, "CIFAR-10's six files", 10, 128, LR, weight_decay=0.001)
    parser.add_argument("--augment", action="store_true", help="mirror and shift the training images at random")
    options = parser.parse_args(arguments)
    training.check_options(parser, options, LR)
    return options


if __name__ == "__main__":
    main()
