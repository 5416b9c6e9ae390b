"""Networks and a training loop that ranks run as a user's program would, with layers that look at a whole batch."""

from __future__ import annotations

import numpy as np

import needle as ndl
from needle import nn
from needle.data import worker_batches
from needle.distributed import SharedGradients, current_communicator

STEPS = 50
SIZES = [6, 7, 5, 2]  # items per batch, over and over: some that 2 and 3 ranks do not divide, and fewer than 3


class Residual(nn.Module):
    """Convolutions around which the input is added, with batch norm and dropout."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype="float64"),
            nn.BatchNorm2d(channels, dtype="float64"),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.Conv2d(channels, channels, 3, padding=1, dtype="float64"),
            nn.BatchNorm2d(channels, dtype="float64"),
        )

    def forward(self, x):
        return nn.functional.relu(x + self.body(x))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, dtype="float64"), nn.BatchNorm2d(4, dtype="float64"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, dtype="float64"), nn.BatchNorm2d(4, momentum=None, dtype="float64"), nn.ReLU(),
        nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 6, dtype="float64"), nn.BatchNorm1d(6, dtype="float64"),
        nn.ReLU(), nn.Linear(6, 3, dtype="float64"),
    )  # fmt: skip


def residual():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, dtype="float64"), Residual(4), nn.InstanceNorm2d(4), Residual(4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4, dtype="float64"), nn.Linear(4, 3, dtype="float64"),
    )  # fmt: skip


NETS = {"convolutions": convolutions, "residual": residual}
OPTIMIZERS = {
    "adam": lambda params: ndl.optim.Adam(params, lr=0.01, weight_decay=0.01),
    "sgd": lambda params: ndl.optim.SGD(params, lr=0.05, momentum=0.9),
}


def batches(steps):
    draws = np.random.RandomState(3)
    sizes = [SIZES[i % len(SIZES)] for i in range(steps)]
    return [(draws.randn(n, 2, 6, 6), draws.randint(0, 3, n)) for n in sizes]


def train(model, optimizer, steps=STEPS):
    """The losses, the last gradients and the last weights and buffers, as one array."""
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    gradients = SharedGradients(model.parameters())
    losses = []
    for x, y in worker_batches(batches(steps)):
        scores = model(ndl.Tensor(x))
        loss = gradients.backward(nn.functional.cross_entropy(scores, ndl.Tensor(y)))
        losses.append(loss.numpy())
        optimizer.step()
    tensors = [*model.parameters(), *(buffer for _, buffer in model.named_buffers())]
    grads = [parameter.grad for parameter in model.parameters()]
    return np.concatenate([losses, *(tensor.numpy().ravel() for tensor in [*grads, *tensors])])


def train_on_all_ranks(model, optimizer):
    """`train` of each rank, by rank."""
    return current_communicator().all_gather(train(model, optimizer)[None])
