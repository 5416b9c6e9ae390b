"""A small training run with everything in it that has a state, made anew by each call of `make`."""

from __future__ import annotations

import numpy as np

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, Dataset, NDArrayDataset, RandomCrop, RandomFlipHorizontal
from needle.metrics import Accuracy

ITEMS = 26


class Augmented(Dataset):
    """Images (8, 8, 3) that are flipped and shifted at random, as (3, 8, 8), and their labels."""

    def __init__(self) -> None:
        super().__init__([RandomFlipHorizontal(), RandomCrop(1)])
        stream = np.random.RandomState(3)
        self.images = stream.randn(ITEMS, 8, 8, 3).astype("float32")
        self.labels = stream.randint(0, 3, ITEMS)

    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        return self.apply_transforms(self.images[index]).transpose(2, 0, 1), self.labels[index]


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 3),
    )  # fmt: skip


def held_out():
    stream = np.random.RandomState(4)
    dataset = NDArrayDataset(stream.randn(10, 3, 8, 8).astype("float32"), stream.randint(0, 3, 10))
    return DataLoader(dataset, 4, shuffle=True, seed=5)


def adam(parameters):
    return optim.Adam(parameters, lr=0.01, weight_decay=0.01)


def momentum(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)


def make(optimizer=adam, seed=None, **options):
    """(the model, a function that trains it for 2 epochs of 7 batches)."""
    ndl.seed(1)
    model = network()
    made = optimizer(model.parameters())
    loader = DataLoader(Augmented(), 4, shuffle=True, seed=seed)

    def run(**more):
        arguments = {"epochs": 2, "validation": held_out(), "metrics": {"accuracy": Accuracy()}} | options | more
        return training.fit(model, nn.CrossEntropyLoss(), made, loader, **arguments)

    return model, made, run


class Stops:
    """A callback that stops after some batches, or epochs."""

    def __init__(self, batches=None, epochs=None):
        self.batches, self.epochs, self.seen = batches, epochs, 0

    def on_step(self, state):
        self.seen += 1
        if self.seen == self.batches:
            state.stop("enough")

    def on_epoch_end(self, state):
        if state.epoch == self.epochs:
            state.stop("enough")


def bytes_of(module):
    """Names and bytes of all parameters and buffers."""
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def repeatable(history):
    """The figures that are equal in every run."""
    return [{name: x for name, x in row.items() if name not in ("seconds", "items_per_second")} for row in history]
